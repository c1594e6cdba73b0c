//! The steps on pods: failed in place, kept as evidence, collected.
//!
//! Enters: the pods that a verdict condemns. Leaves: an effect for each, never for one that may have run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::reason::Reason;
use super::effect::{Effect, EffectId, FAILED_DEADLINE, FailureState};
use super::entry::TaskEntry;
use super::findings::Finding;
use super::ledger::{Ledger, Step};
use super::moment::whole_second;
use super::notes::Conviction;
use super::planner::Desk;
use super::pods::Fate;
use super::rules::Rules;
use super::task::TaskKindOf;

/// A kept pod that has not failed by then has a dead kubelet: it would hold CPU and quota.
const DEAD_KUBELET: Duration = Duration::from_secs(60);

impl Ledger {
    /// Record, then the pods in place, each for the image that it waits for itself, then an Event for each.
    pub(super) fn fail_pods(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        state: FailureState,
        pods: &[(String, String)],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        if !rules.audits() && !self.want_record(entry, rules, state, Reason::PodFailed, Some(conviction), desk) {
            return;
        }
        if rules.audits() {
            return self.tell_would_fail(entry, rules, pods, desk);
        }
        for (uid, image) in pods {
            if let Some(pod) = self.pods.get_mut(uid) {
                pod.failed_for = Some(image.clone());
            }
            self.fail_pod(entry, uid, image, None, desk);
        }
    }

    /// Fails a pod in place. True: that is done.
    fn fail_pod(
        &mut self,
        entry: &mut TaskEntry,
        uid: &str,
        image: &str,
        marks: Option<(BTreeMap<String, String>, BTreeMap<String, String>)>,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(pod) = self.pods.get_mut(uid) else { return true };
        if pod.fate != Fate::Open {
            return true;
        }
        if pod.sight.active_deadline == Some(FAILED_DEADLINE) {
            pod.failed_at.get_or_insert(desk.cx.now);
        }
        if pod.failed_at.is_some() {
            return true;
        }
        if pod.wait_until > desk.cx.now {
            entry.wake = entry.wake.min(pod.wait_until);
            return false;
        }
        let (labels, annotations) = marks.unwrap_or_default();
        let effect = Effect::FailPod {
            namespace: pod.sight.facts.namespace.clone(),
            name: pod.sight.facts.name.clone(),
            fence: pod.fence(),
            image: image.to_owned(),
            labels,
            annotations,
        };
        let id = entry.task.id.clone();
        let step = Step::FailPod { uid: uid.to_owned() };
        self.emit(format!("{}/fail-pod/{uid}", entry.tag()), (Some(&id), &id.namespace), step, effect, desk);
        false
    }

    /// The pods of a failed task, the newest first: the dead ones and those that are condemned.
    fn of_the_failed(&self, entry: &TaskEntry, condemned: &[String]) -> Vec<String> {
        let mut pods: Vec<_> = entry
            .pods
            .iter()
            .filter_map(|uid| self.pods.get_key_value(uid))
            .filter(|(uid, pod)| !pod.collected && (pod.fate == Fate::Dead || condemned.contains(uid)))
            .map(|(uid, pod)| (std::cmp::Reverse(pod.sight.created), uid.clone()))
            .collect();
        pods.sort();
        pods.into_iter().map(|(_, uid)| uid).collect()
    }

    /// The newest pods are kept as evidence: labelled and failed in place. True: they are.
    pub(super) fn fail_kept(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        condemned: &[String],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) -> bool {
        let failed_at = entry.permanent().and_then(|record| record.failed_at).unwrap_or(whole_second(desk.cx.wall));
        let mut done = true;
        for uid in self.of_the_failed(entry, condemned).into_iter().take(rules.keep_pods as usize) {
            let marks = (Conviction::labels(), conviction.annotations(failed_at));
            let put_off = self.pods.get(&uid).is_some_and(|pod| pod.wait_until > desk.cx.now);
            done &= self.fail_pod(entry, &uid, &conviction.key, Some(marks), desk) || put_off;
        }
        done
    }

    /// Whether a deletion of one of its pods is on its way. The watch may have said already that the pod is gone.
    fn is_deleting(&self, entry: &TaskEntry) -> bool {
        let begins = EffectId(format!("{}/delete/", entry.tag()));
        self.flights.range(&begins..).next().is_some_and(|(id, _)| id.0.starts_with(&begins.0))
    }

    /// Deletes all but the kept ones, and tells when all is done.
    pub(super) fn collect(
        &mut self,
        entry: &mut TaskEntry,
        rules: &Rules,
        findings: &[Finding],
        condemned: &[String],
        conviction: &Conviction,
        desk: &mut Desk<'_>,
    ) {
        // Also the dead ones, which no finding is about: nothing is deleted in an outage.
        if findings.iter().any(|finding| finding.braked) || self.any_out(entry, &desk.cx) {
            return;
        }
        let mut pending = self.is_deleting(entry);
        let id = entry.task.id.clone();
        let mut kept = 0;
        for uid in self.of_the_failed(entry, condemned) {
            let Some(pod) = self.pods.get(&uid) else { continue };
            let may_stay = match (&entry.task.kind, pod.fate) {
                // Its own controller looks after the dead ones; a pending one would hold CPU and quota.
                (TaskKindOf::Listed(_), fate) => fate == Fate::Dead,
                (_, Fate::Dead) => true,
                (_, Fate::Open | Fate::Gone) => pod.failed_at.is_none_or(|at| desk.cx.now.since(at) < DEAD_KUBELET),
            };
            if kept < rules.keep_pods && may_stay {
                kept += 1;
                if let Some(at) = pod.failed_at.filter(|_| pod.fate == Fate::Open) {
                    entry.wake = entry.wake.min(at.plus(DEAD_KUBELET));
                }
                continue;
            }
            pending = true;
            if pod.wait_until > desk.cx.now {
                entry.wake = entry.wake.min(pod.wait_until);
                continue;
            }
            let effect = Effect::DeletePod {
                namespace: pod.sight.facts.namespace.clone(),
                name: pod.sight.facts.name.clone(),
                fence: pod.fence(),
                image: conviction.key.clone(),
            };
            let step = Step::Delete { uid: uid.clone() };
            self.emit(format!("{}/delete/{uid}", entry.tag()), (Some(&id), &id.namespace), step, effect, desk);
        }
        if !pending {
            self.tell_collected(entry, rules, conviction, desk);
        }
    }
}
