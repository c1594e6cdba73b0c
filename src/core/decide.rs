//! The verdict of admission.
//!
//! Enters: a question, the policies, the inventory, the failed tasks, the time. Leaves: a verdict. Pure and total: the
//! same arguments give the same verdict, and there is one for everything.
//!
//! Here is the table of findings: what is judged in which order, and how far each finding goes. Where the images are is
//! worked out in `outcome`, once for all policies that ask the same.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use super::image::{ImageName, host_case_suggestion};
use super::inventory::Inventory;
use super::message::{self, remedy};
use super::outcome::{Outcome, Outcomes, Suggestion};
use super::pod::PullPolicy;
use super::policies::{Certainty, Entry, Policies};
use super::policy::{Action, Enforcement, Policy, PresenceScope, RuntimeEnforcement};
use super::presence::is_preloaded;
use super::reason::{Detail, Reason};
use super::refusal::Refusals;
use super::verdict::{Finding, Judged, Question, Subject, Verdict};
use super::want::{Want, wants};

/// Judges a pod or a template.
pub fn decide(
    question: &Question<'_>,
    policies: &Policies,
    inventory: &Inventory,
    refusals: &(impl Refusals + ?Sized),
    now: Timestamp,
) -> Verdict {
    let matching: Vec<(&Entry, Certainty)> = policies.matching(&question.pod.labels, question.namespace).collect();
    if matching.is_empty() {
        return Verdict::default();
    }
    let mut deliberation = Deliberation::new(question, policies, inventory, now);
    for (entry, certainty) in &matching {
        match certainty {
            Certainty::Certain => deliberation.judge(entry),
            Certainty::Possible => deliberation.namespace_unknown(entry),
        }
    }
    let certain = matching.iter().filter(|(_, certainty)| *certainty == Certainty::Certain);
    deliberation.refuse(&certain.map(|(entry, _)| *entry).collect::<Vec<_>>(), refusals);
    let mut verdict = deliberation.verdict;
    settle(&mut verdict);
    verdict.matched_policies = matching.iter().map(|(entry, _)| Arc::clone(&entry.name)).collect();
    verdict
}

/// The strictest first; then as they were found: by policy, then by container.
fn settle(verdict: &mut Verdict) {
    verdict.findings.sort_by_key(|finding| (Reverse(finding.action), Reverse(finding.would_be)));
    let surplus = verdict.findings.len().saturating_sub(Verdict::MAX_FINDINGS);
    verdict.findings.truncate(Verdict::MAX_FINDINGS);
    verdict.omitted += surplus;
}

/// A finding before it is attributed: what does not depend on who asked.
struct Draft {
    reason: Reason,
    detail: Option<Detail>,
    would_be: Action,
    explanation: Arc<str>,
    hint: Option<Arc<str>>,
    remedy: Option<Cow<'static, str>>,
}

struct Deliberation<'a> {
    question: Question<'a>,
    inventory: &'a Inventory,
    now: Timestamp,
    wants: Vec<Want<'a>>,
    outcomes: Outcomes<'a>,
    namespace_text: Option<Arc<str>>,
    verdict: Verdict,
}

impl<'a> Deliberation<'a> {
    fn new(question: &Question<'a>, policies: &Policies, inventory: &'a Inventory, now: Timestamp) -> Self {
        Self {
            question: *question,
            inventory,
            now,
            wants: wants(question),
            outcomes: Outcomes::new(question, policies, inventory, now),
            namespace_text: None,
            verdict: Verdict::default(),
        }
    }

    fn judge(&mut self, entry: &Entry) {
        let policy = &*entry.policy;
        let mut together: Vec<(usize, bool)> = Vec::new();
        for index in 0..self.wants.len() {
            match self.settle_alone(policy, index) {
                Some(draft) => self.find(entry, Some(index), draft),
                None => {
                    let Some(want) = self.wants.get(index) else { continue };
                    if self.in_scope(policy, want) {
                        let preloaded = want.parsed.as_ref().is_ok_and(|name| is_preloaded(policy, name));
                        together.push((index, preloaded));
                    }
                }
            }
        }
        if together.is_empty() {
            return;
        }
        if !self.inventory.is_synced() {
            return self.not_synced(entry, &together);
        }
        let outcome = self.outcomes.of(entry, together, &self.wants);
        let (reason, would_be, blames) = match &*outcome {
            Outcome::Present => return,
            Outcome::Absent(blames) => (Reason::ImageAbsent, policy.presence.on_absent, blames),
            Outcome::Unknown(blames) => (Reason::ImagePresenceUnknown, policy.presence.on_unknown, blames),
        };
        for blame in blames {
            let draft = Draft {
                reason,
                detail: blame.detail,
                would_be,
                explanation: Arc::clone(&blame.explanation),
                hint: hint_for(policy, &blame.near),
                remedy: self.remedy_for(policy, blame.want, our_remedy(policy, blame.detail)),
            };
            self.find(entry, Some(blame.want), draft);
        }
    }

    /// What settles an image by itself, before presence is looked at.
    fn settle_alone(&mut self, policy: &Policy, index: usize) -> Option<Draft> {
        let judges_presence = self.presence_is_judged();
        let want = self.wants.get_mut(index)?;
        let name = match want.parsed {
            Ok(name) => name,
            Err(error) => {
                return Some(Draft {
                    reason: Reason::InvalidImageReference,
                    detail: None,
                    would_be: Action::Deny,
                    explanation: want.invalid(error),
                    hint: None,
                    remedy: Some(Cow::Borrowed(remedy::INVALID)),
                });
            }
        };
        if !is_allowed(policy, name) {
            let explanation = want.text(Reason::ImageNotAllowed, message::not_allowed);
            return Some(Draft {
                reason: Reason::ImageNotAllowed,
                detail: None,
                would_be: Action::Deny,
                explanation,
                hint: other_host(policy, name),
                remedy: self.remedy_for(policy, index, Some(remedy::NOT_ALLOWED)),
            });
        }
        let needs_registry = policy.presence.scope == PresenceScope::All && want.pull_policy == PullPolicy::Always;
        if needs_registry && judges_presence {
            let explanation = want.text(Reason::AlwaysNeedsRegistry, message::always);
            return Some(Draft {
                reason: Reason::AlwaysNeedsRegistry,
                detail: None,
                would_be: policy.presence.on_absent,
                explanation,
                hint: None,
                remedy: self.remedy_for(policy, index, Some(remedy::ALWAYS)),
            });
        }
        None
    }

    fn presence_is_judged(&self) -> bool {
        match self.question.subject {
            Subject::Pod | Subject::BoundPod | Subject::Template => true,
            Subject::DaemonSetTemplate => false,
        }
    }

    fn in_scope(&self, policy: &Policy, want: &Want<'_>) -> bool {
        self.presence_is_judged()
            && match policy.presence.scope {
                PresenceScope::All => true,
                PresenceScope::NeverOnly => want.pull_policy == PullPolicy::Never,
            }
    }

    /// Nothing is known yet: not even a policy that denies the unknown turns that into a denial.
    fn not_synced(&mut self, entry: &Entry, together: &[(usize, bool)]) {
        for (index, _) in together {
            let Some(want) = self.wants.get_mut(*index) else { continue };
            let draft = Draft {
                reason: Reason::ImagePresenceUnknown,
                detail: Some(Detail::InventoryNotSynced),
                would_be: entry.policy.presence.on_unknown.min(Action::Warn),
                explanation: want.text(Reason::ImagePresenceUnknown, message::not_synced),
                hint: None,
                remedy: None,
            };
            self.find(entry, Some(*index), draft);
        }
    }

    /// It is not known whether the policy matches: neither a denial nor silence.
    fn namespace_unknown(&mut self, entry: &Entry) {
        if self.wants.is_empty() {
            return;
        }
        let name = &self.question.namespace.name;
        let text = self.namespace_text.get_or_insert_with(|| message::namespace_unknown(name).into());
        let draft = Draft {
            reason: Reason::ImagePresenceUnknown,
            detail: Some(Detail::NamespaceUnknown),
            would_be: entry.policy.presence.on_unknown.min(Action::Warn),
            explanation: Arc::clone(text),
            hint: None,
            remedy: None,
        };
        self.find(entry, None, draft);
    }

    /// A pod of a permanently failed task. Of runtime settings the most cautious of all matching policies holds: one that
    /// does not deny re-creation spares the pod, one that only audits makes it a would-have.
    fn refuse(&mut self, matching: &[&Entry], refusals: &(impl Refusals + ?Sized)) {
        let is_new_pod = self.question.subject == Subject::Pod && *self.question.judged == Judged::Every;
        let spared = matching.iter().any(|entry| !entry.policy.runtime.deny_recreation);
        let Some(strictest) = matching.iter().rev().max_by_key(|entry| entry.policy.enforcement) else { return };
        if !is_new_pod || spared {
            return;
        }
        let all: Vec<&Policy> = matching.iter().map(|entry| &*entry.policy).collect();
        let Some(refusal) = refusals.refusal(self.question.pod, &all, self.now) else { return };
        let namespace = &self.question.pod.namespace;
        let text =
            message::refused(&refusal.image, refusal.class.as_str(), &refusal.message, namespace, &refusal.record);
        let draft = Draft {
            reason: Reason::TaskPermanentlyFailed,
            detail: Some(Detail::Cause(refusal.class)),
            would_be: Action::Deny,
            explanation: message::clean(&text).into(),
            hint: None,
            remedy: Some(Cow::Owned(refusal.remedy)),
        };
        let audited = all.iter().any(|policy| policy.runtime.enforcement == RuntimeEnforcement::Audit);
        let index = self.wants.iter().position(|want| want.written == refusal.image);
        self.find_audited(strictest, index, draft, audited);
    }

    fn remedy_for(&self, policy: &Policy, index: usize, ours: Option<&'static str>) -> Option<Cow<'static, str>> {
        let reference = self.wants.get(index).and_then(|want| want.parsed.as_ref().ok()?.reference());
        let operators = reference.and_then(|reference| policy.remedy_for(reference));
        operators.map(|text| Cow::Owned(text.to_owned())).or(ours.map(Cow::Borrowed))
    }

    fn find(&mut self, entry: &Entry, index: Option<usize>, draft: Draft) {
        self.find_audited(entry, index, draft, false);
    }

    /// `audited`: something besides the policy's own enforcement says Audit.
    fn find_audited(&mut self, entry: &Entry, index: Option<usize>, draft: Draft, audited: bool) {
        let policy = &*entry.policy;
        let (by_enforcement, audited) = match policy.enforcement {
            Enforcement::Enforce => (Action::Deny, audited),
            Enforcement::Warn => (Action::Warn, audited),
            Enforcement::Audit => (Action::Deny, true),
        };
        let by_kind = if self.question.subject.is_template() { policy.templates } else { Action::Deny };
        let shared = index.and_then(|index| self.wants.get_mut(index)).map(Want::shared);
        let (image, containers) = shared.unwrap_or_else(|| ("".into(), [].into()));
        let Draft { reason, detail, would_be, explanation, hint, remedy } = draft;
        let unaudited = would_be.min(by_enforcement).min(by_kind);
        let action = if audited { Action::Allow } else { unaudited };
        let policy = Arc::clone(&entry.name);
        let finding = Finding {
            policy,
            containers,
            image,
            reason,
            detail,
            action,
            would_be,
            unaudited,
            explanation,
            hint,
            remedy,
        };
        self.verdict.findings.push(finding);
        if self.verdict.findings.len() > 8 * Verdict::MAX_FINDINGS {
            settle(&mut self.verdict);
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

/// The likeliest near name that this policy would allow.
fn hint_for(policy: &Policy, near: &[Suggestion]) -> Option<Arc<str>> {
    let allowed = |near: &&Suggestion| {
        policy.allowed_images.as_ref().is_none_or(|allowed| near.reference().is_some_and(|name| allowed.matches(name)))
    };
    near.iter().find(allowed).map(|near| Arc::clone(&near.text))
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
