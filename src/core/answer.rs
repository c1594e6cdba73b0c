//! A verdict as text: the denial, the warnings, an Event's note.
//!
//! Enters: findings. Leaves: text within the bounds of the API server. Findings that several policies share are said once.

use std::sync::Arc;

use super::message::{LAG, clean, cut};
use super::pod::PodFacts;
use super::policy::Action;
use super::reason::Reason;
use super::rescue::Rescued;
use super::verdict::{Finding, Verdict};

/// The API server shortens longer ones, and drops what is beyond 4,096 bytes in all.
const WARNING: usize = 256;
const WARNINGS: usize = 16;
/// What is to be done comes in so many warnings of one finding at most.
const ADVICE: usize = 3;
/// `events.k8s.io/v1` refuses a longer note.
const NOTE: usize = 1024;
/// A denial becomes an Event of the Job controller and a line on a terminal.
const DENIAL: usize = 4096;

/// What an Event begins with that tells what Audit alone has prevented.
pub const AUDIT_MARK: &str = "(audit) ";

impl Finding {
    /// All of it: what was found, what was probably meant, what to do, and whose policy it is.
    pub fn message(&self) -> String {
        format!("{} {}", self.explanation, self.ending())
    }

    /// What follows the explanation.
    fn ending(&self) -> String {
        let mut text = self.advice();
        if self.reason == Reason::ImageAbsent {
            push(&mut text, LAG);
        }
        push(&mut text, &by(&[&self.policy], WIDE));
        text
    }

    fn body(&self) -> String {
        let mut text = self.explanation.to_string();
        push(&mut text, &self.advice());
        text
    }

    /// What was probably meant, and what to do.
    fn advice(&self) -> String {
        let mut text = String::new();
        let parts = [self.hint.as_deref(), self.remedy.as_deref()];
        parts.into_iter().flatten().for_each(|part| push(&mut text, &clean(part)));
        text
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.found, &other.found)
            || ((self.reason, &self.image, &self.remedy) == (other.reason, &other.image, &other.remedy)
                && self.explanation == other.explanation);
        same && self.hint == other.hint
    }
}

fn push(text: &mut String, part: &str) {
    if !text.is_empty() && !part.is_empty() {
        text.push(' ');
    }
    text.push_str(part);
}

/// How many policies a text names, and how much of each name.
#[derive(Clone, Copy)]
struct Room {
    policies: usize,
    bytes: usize,
}

const WIDE: Room = Room { policies: 5, bytes: 253 };
const NARROW: Room = Room { policies: 1, bytes: 60 };

fn by(policies: &[&Arc<str>], room: Room) -> String {
    let mut text = String::from(if policies.len() == 1 { "(policy" } else { "(policies" });
    for (index, name) in policies.iter().take(room.policies).enumerate() {
        text.push_str(if index == 0 { " " } else { ", " });
        let before = text.len();
        text.push_str(name);
        cut(&mut text, before + room.bytes);
    }
    let more = policies.len().saturating_sub(room.policies);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text.push(')');
    text
}

/// Findings of one action, those that say the same together, with the names of their policies.
fn grouped(verdict: &Verdict, action: Action) -> Vec<(&Finding, Vec<&Arc<str>>)> {
    let mut groups: Vec<(&Finding, Vec<&Arc<str>>)> = Vec::new();
    for finding in verdict.with_action(action) {
        match groups.iter_mut().find(|(first, _)| first.says_the_same(finding)) {
            Some((_, policies)) => policies.push(&finding.policy),
            None => groups.push((finding, vec![&finding.policy])),
        }
    }
    groups
}

/// The message of a denial; empty if the verdict does not deny.
pub fn denial(verdict: &Verdict) -> String {
    let groups = grouped(verdict, Action::Deny);
    let mut text = String::new();
    let last = groups.len().saturating_sub(1);
    for (index, (finding, policies)) in groups.iter().enumerate() {
        // The rest would be cut off.
        if text.len() > DENIAL {
            break;
        }
        push(&mut text, &finding.body());
        let lags = |(finding, _): &(&Finding, Vec<&Arc<str>>)| finding.reason == Reason::ImageAbsent;
        if index == last && groups.iter().any(lags) {
            push(&mut text, LAG);
        }
        push(&mut text, &by(policies, WIDE));
    }
    if verdict.omitted > 0 {
        push(&mut text, &format!("{} more findings are left out.", verdict.omitted));
    }
    cut(&mut text, DENIAL);
    text
}

/// The warnings that the client sees, each at most 256 bytes. Of a finding that does not fit into one, what to do is a
/// warning of its own: it is what the reader needs most.
pub fn warnings(verdict: &Verdict) -> Vec<String> {
    let groups = grouped(verdict, Action::Warn);
    let mut warnings = Vec::new();
    for (index, (finding, policies)) in groups.iter().enumerate() {
        let said = warning(finding, policies);
        let rest = groups.len() - index;
        // Unless it is the last, there must be room to say that there are more.
        let kept = usize::from(rest > 1);
        if warnings.len() + said.len() + kept > WARNINGS {
            warnings.push(format!("Pullguard: {rest} more warnings"));
            break;
        }
        warnings.extend(said);
    }
    warnings
}

fn warning(finding: &Finding, policies: &[&Arc<str>]) -> Vec<String> {
    // Who and what come first, for the end may be cut off.
    let mut text = format!("{} {}: {}", finding.reason, by(policies, NARROW), finding.explanation);
    let advice = finding.advice();
    if text.len() + 1 + advice.len() <= WARNING {
        push(&mut text, &advice);
        return vec![text];
    }
    cut(&mut text, WARNING);
    let mut said = vec![text];
    said.extend(wrapped(&format!("{}:", finding.reason), &advice));
    said
}

/// A text in warnings that each begin with the same head, broken between words.
fn wrapped(head: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let last_line = lines.len() == ADVICE;
        match lines.last_mut() {
            Some(line) if last_line || line.len() + 1 + word.len() <= WARNING => push(line, word),
            Some(_) | None => lines.push(format!("{head} {word}")),
        }
    }
    lines.iter_mut().for_each(|line| cut(line, WARNING));
    lines
}

/// The warning by which the client hears that its pod was changed.
pub fn rescue_warning(rescued: &Rescued, pod: &PodFacts, policies: &[Arc<str>]) -> String {
    let policies: Vec<&Arc<str>> = policies.iter().collect();
    let mut text = format!("{} {}: {}", Reason::Rescued, by(&policies, NARROW), clean(&rescued.told(pod)));
    cut(&mut text, WARNING);
    text
}

/// The note of an Event about a rescue.
pub fn rescue_note(rescued: &Rescued, pod: &PodFacts, policies: &[Arc<str>]) -> String {
    let policies: Vec<&Arc<str>> = policies.iter().collect();
    let mut text = format!("{}. {}", clean(&rescued.told(pod)), by(&policies, WIDE));
    cut(&mut text, NOTE);
    text
}

/// The note of an Event about a finding that stands for so many others, at most 1 kB. What the client hears nothing of is
/// marked. If it is too long, what was found is cut, and not what to do.
pub fn note(finding: &Finding, others: usize) -> String {
    let mark = if finding.is_would_have() { AUDIT_MARK } else { "" };
    let mut end = finding.ending();
    if others > 0 {
        push(&mut end, &format!("({others} more)"));
    }
    let mut text = format!("{mark}{}", finding.explanation);
    cut(&mut text, NOTE.saturating_sub(1 + end.len()));
    push(&mut text, &end);
    cut(&mut text, NOTE);
    text
}

#[cfg(test)]
mod tests {
    use super::super::reason::Detail;
    use super::super::verdict::Found;
    use super::*;

    const REMEDY: &str = "Run ./images/build.sh node to build it.";

    fn finding(policy: &str, explanation: &str, remedy: &str) -> Finding {
        let found = Found {
            containers: [].into(),
            image: "optio-node:latest".into(),
            reason: Reason::ImageAbsent,
            detail: Some(Detail::MayScaleUp),
            action: Action::Warn,
            would_be: Action::Deny,
            unaudited: Action::Warn,
            explanation: explanation.into(),
            remedy: Some(remedy.to_owned().into()),
        };
        Finding { policy: policy.into(), hint: None, found: Arc::new(found) }
    }

    fn said(findings: Vec<Finding>) -> Vec<String> {
        let warnings = warnings(&Verdict { findings, omitted: 0, matched_policies: Vec::new() });
        assert!(warnings.len() <= WARNINGS && warnings.iter().all(|warning| warning.len() <= WARNING), "{warnings:?}");
        warnings
    }

    #[test]
    fn what_fits_is_one_warning() {
        let warnings = said(vec![finding("agents", "image \"a\" is on none of the 3 nodes.", REMEDY)]);
        assert_eq!(warnings, [format!("ImageAbsent (policy agents): image \"a\" is on none of the 3 nodes. {REMEDY}")]);
    }

    #[test]
    fn what_to_do_is_never_what_is_cut_off() {
        let explanation = "image \"optio-node:latest\" (docker.io/library/optio-node:latest) is on none of the 3 nodes that this pod \
            could run on, and imagePullPolicy is Never: 3 do not list it; node d holds it but is tainted gpu=true:NoSchedule.";
        let warnings = said(vec![finding("agents", explanation, REMEDY)]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].starts_with("ImageAbsent (policy agents): image"), "{}", warnings[0]);
        assert_eq!(warnings[1], format!("ImageAbsent: {REMEDY}"));
        // As long as a policy may make it.
        let remedy = "Ask the build team. ".repeat(13).trim_end().to_owned();
        assert!(remedy.len() > 250);
        let warnings = said(vec![finding("agents", explanation, &remedy)]);
        let words: Vec<&str> = warnings.iter().skip(1).filter_map(|line| line.strip_prefix("ImageAbsent: ")).collect();
        assert_eq!(words.join(" "), remedy);
    }

    #[test]
    fn of_many_policies_one_is_named_and_of_a_long_name_enough() {
        let name = "a-policy-with-a-name-".repeat(12);
        let all = (0..7).map(|n| finding(&format!("{n}{name}"), "image \"a\" is on no node.", REMEDY)).collect();
        let warnings = said(all);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("and 6 more") && warnings[0].ends_with(REMEDY), "{}", warnings[0]);
    }

    #[test]
    fn beyond_sixteen_the_last_says_how_many_there_are() {
        let all: Vec<Finding> = (0..40).map(|n| finding("p", &format!("{n}{}", "x".repeat(250)), REMEDY)).collect();
        let warnings = said(all.clone());
        // Two each: seven of them fit, and the word on the other 33.
        assert_eq!(warnings.last().map(String::as_str), Some("Pullguard: 33 more warnings"));
        let short = (0..16).map(|n| finding("p", &format!("{n}."), REMEDY)).collect();
        assert_eq!(said(short).len(), 16);
    }

    #[test]
    fn a_rescue_is_told_in_one_line_with_its_policies() {
        let pod = super::super::fixtures::never("a").with("side\ncar", "b", super::super::pod::PullPolicy::Never);
        let policies: Vec<Arc<str>> = vec!["agents".into(), "teams".into()];
        let warning = rescue_warning(&Rescued::Pull(vec![0, 1]), &pod, &policies);
        assert_eq!(
            warning,
            "Rescued (policies agents and 1 more): imagePullPolicy is IfNotPresent instead of Never for: main, side car"
        );
        assert!(rescue_note(&Rescued::Pull(vec![0]), &pod, &policies).ends_with("(policies agents, teams)"));
    }

    #[test]
    fn a_note_says_what_was_meant_what_to_do_and_when_and_is_cut_before_that() {
        let hint = "Did you mean localhost/optio-node:latest, on node a?";
        for explanation in ["image \"a\" is on no node.".to_owned(), "x".repeat(3_000)] {
            let finding = Finding { hint: Some(hint.into()), ..finding("agents", &explanation, REMEDY) };
            let note = note(&finding, 3);
            assert!(note.len() <= NOTE);
            assert!(note.ends_with(&format!("{hint} {REMEDY} {LAG} (policy agents) (3 more)")), "{note}");
        }
        let mut audited = finding("agents", "a.", REMEDY);
        Arc::make_mut(&mut audited.found).action = Action::Allow;
        assert!(note(&audited, 0).starts_with(AUDIT_MARK));
    }
}
