//! The verdict of admission.
//!
//! Enters: a question, the policies, the inventory, the failed tasks, the time. Leaves: a verdict. Pure and total: the
//! same arguments give the same verdict, and there is one for everything.
//!
//! Here is the table of findings: what is judged in which order, and how far each finding goes. Where the images are is
//! worked out in `outcome`, once for all policies that ask the same.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use super::blocs::{Blocs, Member};
use super::explanation::Explanation;
use super::image::{ImageName, host_case_suggestion};
use super::inventory::Inventory;
use super::message::{self, remedy};
use super::outcome::{Outcome, Outcomes, Suggestion};
use super::pod::PullPolicy;
use super::policies::{Certainty, Entry, Policies, PolicyPatterns, Said};
use super::policy::{Action, Enforcement, Policy, PresenceScope, RuntimeEnforcement};
use super::reason::{Detail, Reason};
use super::refusal::Refusals;
use super::verdict::{Finding, Found, Judged, Question, Subject, Verdict};
use super::want::{Want, wants};

/// Judges a pod or a template.
pub fn decide(
    question: &Question<'_>,
    policies: &Policies,
    inventory: &Inventory,
    refusals: &(impl Refusals + ?Sized),
    now: Timestamp,
) -> Verdict {
    let mut matching = policies.matching(&question.pod.labels, question.namespace).peekable();
    if matching.peek().is_none() {
        return Verdict::default();
    }
    let wants = wants(question);
    let say = |want: &Want<'_>| want.parsed.as_ref().map(|name| policies.patterns().of(name)).unwrap_or_default();
    let said: Vec<Said> = wants.iter().map(say).collect();
    let blocs = Blocs::new(matching, policies.kinds(), &said);
    let mut deliberation = Deliberation {
        question: *question,
        patterns: policies.patterns(),
        inventory,
        now,
        wants,
        said,
        outcomes: Outcomes::new(question, policies, inventory, now),
    };
    let mut opinions: Vec<Option<Opinions>> = Vec::new();
    opinions.resize_with(blocs.bound, || None);
    for member in &blocs.members {
        if let Some(opinions) = opinions.get_mut(member.bloc).filter(|opinions| opinions.is_none()) {
            *opinions = Some(deliberation.judge(member));
        }
    }
    let refusal = deliberation.refuse(&blocs.members, refusals);
    deliberation.conclude(&blocs, &opinions, refusal)
}

/// What a bloc has found.
struct Opinion {
    found: Arc<Found>,
    hint: Hint,
}

/// What a bloc has found in all, of each rank as much as a verdict can tell of: a pod may have thousands of images.
#[derive(Default)]
struct Opinions {
    told: Vec<Opinion>,
    /// How many there are.
    counts: BTreeMap<Rank, usize>,
}

impl Opinions {
    fn push(&mut self, opinion: Opinion) {
        let count = self.counts.entry(opinion.rank()).or_default();
        *count += 1;
        if *count <= Verdict::MAX_FINDINGS {
            self.told.push(opinion);
        }
    }

    fn of_rank(&self, rank: Rank) -> impl Iterator<Item = &Opinion> {
        self.told.iter().filter(move |opinion| opinion.rank() == rank)
    }

    fn left_out(&self, rank: Rank) -> usize {
        self.counts.get(&rank).map_or(0, |count| count.saturating_sub(Verdict::MAX_FINDINGS))
    }
}

/// Where a member finds its "did you mean": what it allows may differ from what others do.
#[derive(Default)]
enum Hint {
    #[default]
    None,
    Near(Rc<[Suggestion]>),
    /// The image of a want, with its host spelt as in the member's allowlist.
    OtherHost(usize),
}

impl Opinion {
    /// The strictest first.
    fn rank(&self) -> Rank {
        rank(&self.found)
    }
}

type Rank = (Reverse<Action>, Reverse<Action>);

fn rank(found: &Found) -> Rank {
    (Reverse(found.action), Reverse(found.would_be))
}

/// A finding before it is capped: what does not depend on how strict somebody is.
struct Draft {
    reason: Reason,
    detail: Option<Detail>,
    would_be: Action,
    explanation: Explanation,
    remedy: Option<Cow<'static, str>>,
}

struct Deliberation<'a> {
    question: Question<'a>,
    patterns: &'a PolicyPatterns,
    inventory: &'a Inventory,
    now: Timestamp,
    wants: Vec<Want<'a>>,
    /// What all policies say of each want.
    said: Vec<Said>,
    outcomes: Outcomes<'a>,
}

impl Deliberation<'_> {
    /// What this policy finds, and with it all of its bloc.
    fn judge(&mut self, member: &Member<'_>) -> Opinions {
        let entry = member.entry;
        let mut opinions = Opinions::default();
        match member.certainty {
            Certainty::Possible => self.namespace_unknown(&entry.policy).into_iter().for_each(|one| opinions.push(one)),
            Certainty::Certain => {
                let mut together: Vec<(usize, bool)> = Vec::new();
                for index in 0..self.wants.len() {
                    match self.settle_alone(entry, index) {
                        Some(opinion) => opinions.push(opinion),
                        None if self.in_scope(&entry.policy, index) => {
                            let preloaded =
                                self.said.get(index).is_some_and(|said| said.preloaded.contains(entry.place));
                            together.push((index, preloaded));
                        }
                        None => {}
                    }
                }
                self.judge_presence(entry, together, &mut opinions);
            }
        }
        opinions
    }

    fn judge_presence(&mut self, entry: &Entry, together: Vec<(usize, bool)>, opinions: &mut Opinions) {
        let policy = &*entry.policy;
        if together.is_empty() {
            return;
        }
        if !self.inventory.is_synced() {
            return together
                .iter()
                .filter_map(|(index, _)| self.not_synced(policy, *index))
                .for_each(|one| opinions.push(one));
        }
        let outcome = self.outcomes.of(entry, together, &self.wants);
        let (reason, would_be, blames) = match &*outcome {
            Outcome::Present => return,
            Outcome::Absent(blames) => (Reason::ImageAbsent, policy.presence.on_absent, blames),
            Outcome::Unknown(blames) => (Reason::ImagePresenceUnknown, policy.presence.on_unknown, blames),
        };
        let mut rank = None;
        for blame in &blames.told {
            let draft = Draft {
                reason,
                detail: blame.detail,
                would_be,
                explanation: blame.explanation.clone(),
                remedy: self.remedy_for(policy, blame.want, our_remedy(policy, blame.detail)),
            };
            let hint = if blame.near.is_empty() { Hint::None } else { Hint::Near(Rc::clone(&blame.near)) };
            let opinion = Opinion { found: self.find(policy, Some(blame.want), draft), hint };
            rank = Some(opinion.rank());
            opinions.push(opinion);
        }
        // All of one outcome are of one rank.
        if let Some(rank) = rank {
            *opinions.counts.entry(rank).or_default() += blames.others;
        }
    }

    /// What settles an image by itself, before presence is looked at.
    fn settle_alone(&mut self, entry: &Entry, index: usize) -> Option<Opinion> {
        let policy = &*entry.policy;
        let judges_presence = self.presence_is_judged();
        let want = self.wants.get_mut(index)?;
        let (draft, hint) = match want.parsed {
            Err(error) => {
                let (explanation, remedy) = (want.invalid(error), Some(Cow::Borrowed(remedy::INVALID)));
                let reason = Reason::InvalidImageReference;
                (Draft { reason, detail: None, would_be: Action::Deny, explanation, remedy }, Hint::None)
            }
            Ok(name) if !self.said.get(index)?.allowed.contains(entry.place) => {
                let explanation = want.text(Reason::ImageNotAllowed, message::not_allowed);
                let remedy = self.remedy_for(policy, index, Some(remedy::NOT_ALLOWED));
                let spelt = name.reference().is_some_and(|name| self.patterns.may_spell_otherwise(name.registry()));
                let hint = if spelt { Hint::OtherHost(index) } else { Hint::None };
                let reason = Reason::ImageNotAllowed;
                (Draft { reason, detail: None, would_be: Action::Deny, explanation, remedy }, hint)
            }
            Ok(_) if !judges_presence || policy.presence.scope != PresenceScope::All => return None,
            Ok(_) if want.pull_policy != PullPolicy::Always => return None,
            Ok(_) => {
                let explanation = want.text(Reason::AlwaysNeedsRegistry, message::always);
                let remedy = self.remedy_for(policy, index, Some(remedy::ALWAYS));
                let (reason, would_be) = (Reason::AlwaysNeedsRegistry, policy.presence.on_absent);
                (Draft { reason, detail: None, would_be, explanation, remedy }, Hint::None)
            }
        };
        Some(Opinion { found: self.find(policy, Some(index), draft), hint })
    }

    fn presence_is_judged(&self) -> bool {
        match self.question.subject {
            Subject::Pod | Subject::BoundPod | Subject::Template => true,
            Subject::DaemonSetTemplate => false,
        }
    }

    fn in_scope(&self, policy: &Policy, index: usize) -> bool {
        self.presence_is_judged()
            && match policy.presence.scope {
                PresenceScope::All => true,
                PresenceScope::NeverOnly => {
                    self.wants.get(index).is_some_and(|want| want.pull_policy == PullPolicy::Never)
                }
            }
    }

    /// Nothing is known yet: not even a policy that denies the unknown turns that into a denial.
    fn not_synced(&mut self, policy: &Policy, index: usize) -> Option<Opinion> {
        let want = self.wants.get_mut(index)?;
        let draft = Draft {
            reason: Reason::ImagePresenceUnknown,
            detail: Some(Detail::InventoryNotSynced),
            would_be: policy.presence.on_unknown.min(Action::Warn),
            explanation: want.text(Reason::ImagePresenceUnknown, message::not_synced),
            remedy: None,
        };
        Some(Opinion { found: self.find(policy, Some(index), draft), hint: Hint::None })
    }

    /// It is not known whether the policy matches: neither a denial nor silence.
    fn namespace_unknown(&mut self, policy: &Policy) -> Option<Opinion> {
        if self.wants.is_empty() {
            return None;
        }
        let draft = Draft {
            reason: Reason::ImagePresenceUnknown,
            detail: Some(Detail::NamespaceUnknown),
            would_be: policy.presence.on_unknown.min(Action::Warn),
            explanation: message::namespace_unknown(&self.question.namespace.name).into(),
            remedy: None,
        };
        Some(Opinion { found: self.find(policy, None, draft), hint: Hint::None })
    }

    /// A pod of a permanently failed task. Of runtime settings the most cautious of all matching policies holds: one that
    /// does not deny re-creation spares the pod, one that only audits makes it a would-have.
    fn refuse(&mut self, members: &[Member<'_>], refusals: &(impl Refusals + ?Sized)) -> Option<Finding> {
        let is_new_pod = self.question.subject == Subject::Pod && *self.question.judged == Judged::Every;
        let certain = members.iter().filter(|member| member.certainty == Certainty::Certain);
        let all: Vec<&Policy> = certain.clone().map(|member| &*member.entry.policy).collect();
        if !is_new_pod || all.iter().any(|policy| !policy.runtime.deny_recreation) {
            return None;
        }
        let strictest = certain.rev().max_by_key(|member| member.entry.policy.enforcement)?.entry;
        let refusal = refusals.refusal(self.question.pod, &all, self.now)?;
        let namespace = &self.question.pod.namespace;
        let text =
            message::refused(&refusal.image, refusal.class.as_str(), &refusal.message, namespace, &refusal.record);
        let draft = Draft {
            reason: Reason::TaskPermanentlyFailed,
            detail: Some(Detail::Cause(refusal.class)),
            would_be: Action::Deny,
            explanation: message::clean(&text).into_owned().into(),
            remedy: Some(Cow::Owned(refusal.remedy)),
        };
        let audited = all.iter().any(|policy| policy.runtime.enforcement == RuntimeEnforcement::Audit);
        let index = self.wants.iter().position(|want| want.written == refusal.image);
        let found = self.find_audited(&strictest.policy, index, draft, audited);
        Some(Finding { policy: Arc::clone(&strictest.name), hint: None, found })
    }

    fn remedy_for(&self, policy: &Policy, index: usize, ours: Option<&'static str>) -> Option<Cow<'static, str>> {
        let reference = self.wants.get(index).and_then(|want| want.parsed.as_ref().ok()?.reference());
        let operators = reference.and_then(|reference| policy.remedy_for(reference));
        operators.map(|text| Cow::Owned(text.to_owned())).or(ours.map(Cow::Borrowed))
    }

    fn find(&mut self, policy: &Policy, index: Option<usize>, draft: Draft) -> Arc<Found> {
        self.find_audited(policy, index, draft, false)
    }

    /// `audited`: something besides the policy's own enforcement says Audit.
    fn find_audited(&mut self, policy: &Policy, index: Option<usize>, draft: Draft, audited: bool) -> Arc<Found> {
        let (by_enforcement, audited) = match policy.enforcement {
            Enforcement::Enforce => (Action::Deny, audited),
            Enforcement::Warn => (Action::Warn, audited),
            Enforcement::Audit => (Action::Deny, true),
        };
        let by_kind = if self.question.subject.is_template() { policy.templates } else { Action::Deny };
        let want = index.and_then(|index| self.wants.get(index));
        let (image, containers) = want.map_or_else(|| ("".into(), [].into()), |want| (want.image(), want.containers()));
        let Draft { reason, detail, would_be, explanation, remedy } = draft;
        let unaudited = would_be.min(by_enforcement).min(by_kind);
        let action = if audited { Action::Allow } else { unaudited };
        Arc::new(Found { containers, image, reason, detail, action, would_be, unaudited, explanation, remedy })
    }

    /// The strictest first; then by policy, then by container, and last that the task has failed.
    fn conclude(&self, blocs: &Blocs<'_>, opinions: &[Option<Opinions>], refusal: Option<Finding>) -> Verdict {
        let found = opinions.iter().flatten().flat_map(|opinions| opinions.counts.keys().copied());
        let ranks: BTreeSet<Rank> = found.chain(refusal.as_ref().map(|refusal| rank(&refusal.found))).collect();
        let mut verdict = Verdict {
            findings: Vec::new(),
            omitted: 0,
            matched_policies: blocs.members.iter().map(|member| Arc::clone(&member.entry.name)).collect(),
        };
        for of_rank in ranks {
            for member in &blocs.members {
                let Some(Some(opinions)) = opinions.get(member.bloc) else { continue };
                for opinion in opinions.of_rank(of_rank) {
                    verdict.add(|| Finding {
                        policy: Arc::clone(&member.entry.name),
                        hint: self.hint(member.entry, &opinion.hint),
                        found: Arc::clone(&opinion.found),
                    });
                }
                verdict.omitted += opinions.left_out(of_rank);
            }
            if let Some(refusal) = refusal.as_ref().filter(|refusal| rank(&refusal.found) == of_rank) {
                verdict.add(|| refusal.clone());
            }
        }
        verdict
    }

    /// The likeliest near name that this policy would allow.
    fn hint(&self, entry: &Entry, hint: &Hint) -> Option<Arc<str>> {
        match hint {
            Hint::None => None,
            Hint::Near(near) => {
                let allowed = near.iter().find(|near| near.is_allowed_by(entry, self.patterns));
                allowed.map(Suggestion::text)
            }
            Hint::OtherHost(index) => other_host(&entry.policy, self.wants.get(*index)?.parsed.as_ref().ok()?),
        }
    }
}

impl Verdict {
    fn add(&mut self, finding: impl FnOnce() -> Finding) {
        if self.findings.len() < Self::MAX_FINDINGS {
            self.findings.push(finding());
        } else {
            self.omitted += 1;
        }
    }
}

pub(in crate::core) fn is_allowed(policy: &Policy, name: &ImageName) -> bool {
    policy.allowed_images.as_ref().is_none_or(|allowed| match name {
        ImageName::Reference(reference) => allowed.matches(reference),
        ImageName::Id(_) => allowed.matches_any_image(),
    })
}

fn other_host(policy: &Policy, name: &ImageName) -> Option<Arc<str>> {
    let suggestion = host_case_suggestion(name.reference()?, policy.allowed_images.as_ref()?)?;
    Some(format!("Did you mean {suggestion}?").into())
}

const fn our_remedy(policy: &Policy, detail: Option<Detail>) -> Option<&'static str> {
    match detail {
        None | Some(Detail::MayScaleUp) => match policy.presence.scope {
            PresenceScope::NeverOnly => Some(remedy::ABSENT),
            PresenceScope::All => Some(remedy::NOT_ON_NODES),
        },
        Some(Detail::NoEligibleNode) => Some(remedy::NO_NODE),
        Some(Detail::NoNodeHoldsAll) => Some(remedy::NOT_TOGETHER),
        Some(Detail::ImageId) => Some(remedy::BY_ID),
        Some(Detail::ListTruncated) => Some(remedy::LIMIT),
        Some(Detail::NamesTruncated) => Some(remedy::NAMES),
        Some(Detail::ShortName) => Some(remedy::SHORT_NAME),
        // These pass, or are of the cluster: there is nothing that the person who applies a pod could do.
        Some(Detail::ListEmpty | Detail::TemporaryObstacle | Detail::InventoryNotSynced)
        | Some(Detail::NamespaceUnknown | Detail::Cause(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{inventory, never, node, now, policies, policy};
    use super::super::namespace::NamespaceFacts;
    use super::super::node::{NodeFacts, TaintEffect};
    use super::super::pod::PodFacts;
    use super::super::refusal::NoRefusals;
    use super::*;

    fn decided(pod: &PodFacts, policy: Policy, nodes: Vec<NodeFacts>) -> Verdict {
        let namespace = NamespaceFacts { name: pod.namespace.clone(), labels: Some(Arc::default()) };
        let question = Question { subject: Subject::Pod, pod, namespace: &namespace, judged: &Judged::Every };
        decide(&question, &policies([policy]), &inventory(nodes), &NoRefusals, now())
    }

    #[test]
    fn an_organisation_in_capitals_is_told_what_it_was_meant_to_be() {
        let verdict = decided(&never("MyOrg/app"), policy("p").allowing(&["myorg/*"]), vec![node("a")]);
        let hint = verdict.first().and_then(|finding| finding.hint.as_deref());
        assert_eq!(hint, Some("Did you mean docker.io/myorg/app:latest?"));
    }

    #[test]
    fn of_thousands_of_images_no_more_is_kept_than_can_be_told_and_the_rest_is_counted() {
        const IMAGES: usize = 2 * Verdict::MAX_FINDINGS;
        let mut pod = never("absent-0:1");
        for number in 1..IMAGES {
            pod = pod.with(&format!("c{number}"), &format!("absent-{number}:1"), PullPolicy::Never);
        }
        pod = pod.with("bad", "Not An Image", PullPolicy::Never);
        let mut warning = policy("b");
        warning.enforcement = Enforcement::Warn;
        let namespace = NamespaceFacts { name: pod.namespace.clone(), labels: Some(Arc::default()) };
        let question = Question { subject: Subject::Pod, pod: &pod, namespace: &namespace, judged: &Judged::Every };
        let (inventory, both) = (inventory([node("w1")]), policies([policy("a"), warning]));
        let verdict = decide(&question, &both, &inventory, &NoRefusals, now());
        assert_eq!(verdict.findings.len(), Verdict::MAX_FINDINGS);
        assert_eq!(verdict.findings.len() + verdict.omitted, 2 * (IMAGES + 1));
        assert!(verdict.findings.iter().all(|finding| finding.action == Action::Deny), "the strictest stay");
        let bad = verdict.findings.iter().filter(|finding| finding.reason == Reason::InvalidImageReference).count();
        assert_eq!(bad, 1);
    }

    #[test]
    fn a_taint_keeps_no_pod_away_whose_tolerations_are_to_come() {
        let image = "docker.io/library/agent:1";
        let nodes =
            || vec![node("w1"), node("k1").with_image(&[image]).with_taint("runtime", "kata", TaintEffect::NoSchedule)];
        let mut pod = never("agent:1");
        assert_eq!(decided(&pod, policy("p"), nodes()).action(), Action::Deny);
        pod.placement.tolerations_to_come = true;
        assert_eq!(decided(&pod, policy("p"), nodes()).action(), Action::Allow);
        // It tolerates much, and an image that is nowhere is still nowhere.
        let elsewhere = PodFacts { placement: pod.placement, ..never("agent:2") };
        assert_eq!(decided(&elsewhere, policy("p"), nodes()).action(), Action::Deny);
    }
}
