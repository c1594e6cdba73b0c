//! A verdict as text: the denial, the warnings, an Event's note.
//!
//! Enters: findings. Leaves: text within the bounds of the API server. Findings that several policies share are said once.

use std::sync::Arc;

use super::message::{LAG, clean, cut};
use super::policy::Action;
use super::reason::Reason;
use super::verdict::{Finding, Verdict};

/// The API server shortens longer ones, and drops what is beyond 4,096 bytes in all.
const WARNING: usize = 256;
const WARNINGS: usize = 16;
/// `events.k8s.io/v1` refuses a longer note.
const NOTE: usize = 1024;
/// A denial becomes an Event of the Job controller and a line on a terminal.
const DENIAL: usize = 4096;

impl Finding {
    /// All of it: what was found, what was probably meant, what to do, and whose policy it is.
    pub fn message(&self) -> String {
        let mut text = self.body();
        if self.reason == Reason::ImageAbsent {
            push(&mut text, LAG);
        }
        push(&mut text, &by(&[&self.policy]));
        text
    }

    fn body(&self) -> String {
        let mut text = self.explanation.to_string();
        for part in [self.hint.as_deref(), self.remedy.as_deref()].into_iter().flatten() {
            push(&mut text, &clean(part));
        }
        text
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.reason == other.reason
            && (Arc::ptr_eq(&self.explanation, &other.explanation) || self.explanation == other.explanation)
            && self.hint == other.hint
            && self.remedy == other.remedy
    }
}

fn push(text: &mut String, part: &str) {
    if !part.is_empty() {
        text.push(' ');
        text.push_str(part);
    }
}

fn by(policies: &[&Arc<str>]) -> String {
    const NAMED: usize = 5;
    let named: Vec<&str> = policies.iter().take(NAMED).map(|name| &***name).collect();
    let more = match policies.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let noun = if policies.len() == 1 { "policy" } else { "policies" };
    format!("({noun} {}{more})", named.join(", "))
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
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&finding.body());
        let lags = |(finding, _): &(&Finding, Vec<&Arc<str>>)| finding.reason == Reason::ImageAbsent;
        if index == last && groups.iter().any(lags) {
            push(&mut text, LAG);
        }
        push(&mut text, &by(policies));
    }
    if verdict.omitted > 0 {
        push(&mut text, &format!("{} more findings are left out.", verdict.omitted));
    }
    cut(text, DENIAL)
}

/// The warnings that the client sees, each at most 256 bytes.
pub fn warnings(verdict: &Verdict) -> Vec<String> {
    let groups = grouped(verdict, Action::Warn);
    let more = groups.len().saturating_sub(WARNINGS);
    let shown = if more == 0 { groups.len() } else { WARNINGS - 1 };
    let mut warnings: Vec<String> = groups
        .iter()
        .take(shown)
        .map(|(finding, policies)| {
            // Who and what come first, for the end may be cut off.
            cut(format!("{} {}: {}", finding.reason, by(policies), finding.body()), WARNING)
        })
        .collect();
    if more > 0 {
        warnings.push(format!("Pullguard: {} more warnings", groups.len() - shown));
    }
    warnings
}

/// The note of an Event about a finding, at most 1 kB. What the client hears nothing of is marked.
pub fn note(finding: &Finding) -> String {
    let silenced = finding.action == Action::Allow && finding.would_be > Action::Allow;
    let audit = if silenced { "(audit) " } else { "" };
    cut(format!("{audit}{}", finding.message()), NOTE)
}
