//! Brakes and caps at work: what is measured at each plan, and what is said of it.
//!
//! Enters: the troubles of all pods, the effects that were put off. Leaves: levels, clocks that start anew, Events.

use std::time::Duration;

use super::super::image::ImageName;
use super::super::reason::Reason;
use super::brake::{Change, Level, Place, goes_through_node_brake};
use super::caps::Hit;
use super::effect::{Effect, EffectId, EventAction, EventDraft, EventType, ObjectRef, Planned};
use super::ledger::{Flight, Ledger, Step};
use super::notes::note;
use super::planner::{Cx, Desk};
use super::pods::{Fate, Trouble};

/// Between two Events about one cap.
pub(super) const CAP_TOLD: Duration = Duration::from_secs(600);

impl Ledger {
    /// The brakes hear of every pod that has changed, before it is assigned to a task.
    pub(super) fn feed_brakes(&mut self, cx: &Cx<'_>) {
        for pod in self.dirty_pods.iter().filter_map(|uid| self.pods.get(uid)).filter(|pod| pod.fate == Fate::Open) {
            for trouble in pod.told() {
                let failure = trouble.failure(pod.sight.node.as_deref(), cx.setting.nodes, cx.wall);
                self.brakes.failed(&failure, cx.now);
            }
        }
    }

    pub(super) fn work_brakes(&mut self, everything: bool, desk: &mut Desk<'_>) {
        if everything {
            for (policy, image) in self.denied.by_policy() {
                self.brakes.denied(policy, image, desk.cx.now);
            }
        }
        for Change { report, before } in self.brakes.update(desk.cx.now) {
            let released = before == Level::Outage;
            if released {
                self.restart_clocks(&report.place, &desk.cx);
            }
            if released || report.level == Level::Outage {
                self.tell_brake(&report.place, released, report.failing_images, report.failing_nodes, desk);
            }
        }
    }

    /// What was counted while a registry or a node was out says nothing of the tasks.
    fn restart_clocks(&mut self, place: &Place, cx: &Cx<'_>) {
        let now = cx.now;
        match place {
            Place::Registry(host) => {
                for task in self.tasks.values_mut() {
                    let mut restarted = false;
                    for (key, clock) in &mut task.clocks {
                        let of_host = ImageName::parse(key)
                            .is_ok_and(|name| name.reference().is_some_and(|reference| reference.registry() == host));
                        let held = task.failures.get(key).is_none_or(|failure| failure.class.goes_through_brake());
                        if of_host && held {
                            clock.restart(now);
                            restarted = true;
                        }
                    }
                    if restarted {
                        task.write_clock_down();
                    }
                }
            }
            Place::Node(node) => {
                for pod in self.pods.values().filter(|pod| pod.sight.node.as_ref() == Some(node)) {
                    let Some(task) = pod.task.as_ref().and_then(|id| self.tasks.get_mut(id)) else { continue };
                    let of_node = |trouble: &&Trouble| {
                        let failure = trouble.failure(Some(node), cx.setting.nodes, cx.wall);
                        goes_through_node_brake(failure.class, failure.lost)
                    };
                    for trouble in pod.troubles.values().map(|trouble| &**trouble).filter(of_node) {
                        if let Some(clock) = task.clocks.get_mut(&trouble.image_key) {
                            clock.restart(cx.now);
                            task.write_clock_down();
                        }
                    }
                }
            }
            Place::Policy(policy) => self.denied.restart(policy, now),
        }
    }

    fn tell_brake(&mut self, place: &Place, released: bool, images: usize, nodes: usize, desk: &mut Desk<'_>) {
        let (what, regarding) = match place {
            Place::Registry(host) => (format!("registry {host}"), self.own_object()),
            Place::Node(node) => (format!("node {node}"), cluster_object("v1", "Node", node)),
            Place::Policy(policy) => {
                (format!("policy {policy}"), cluster_object("pullguard.dev/v1alpha1", "NodeImagePolicy", policy))
            }
        };
        let (reason, event_type, text) = if released {
            let text = format!("brake released for {what}: the grace of its failures starts anew");
            (Reason::BrakeReleased, EventType::Normal, text)
        } else {
            let text = format!(
                "brake engaged for {what}: {images} images and {nodes} nodes fail at once; nothing is declared permanent"
            );
            (Reason::BrakeEngaged, EventType::Warning, text)
        };
        let key = format!("{}/{what}/{}", reason.as_str(), desk.cx.wall.as_second() / 60);
        let draft = EventDraft {
            namespace: CLUSTER_EVENTS.to_owned(),
            event_type,
            reason,
            action: EventAction::Brake,
            regarding,
            related: None,
            note: note(false, &text),
            key: key.clone(),
        };
        self.emit(key, (None, CLUSTER_EVENTS), Step::Announce, Effect::EmitEvent(draft), desk);
    }

    pub(super) fn tell_caps(&mut self, desk: &mut Desk<'_>) {
        for hit in std::mem::take(&mut desk.out.hits) {
            let (what, namespace) = match &hit {
                // Followed by the next plan within a second: nobody needs to know.
                Hit::Plan => {
                    desk.out.hits.insert(hit);
                    continue;
                }
                Hit::Namespace(namespace) => (format!("namespace {namespace}"), Some(namespace.clone())),
                Hit::Cluster => ("the cluster".to_owned(), None),
            };
            desk.out.hits.insert(hit);
            if self.cap_told.get(&what).is_some_and(|told| desk.cx.now.since(*told) < CAP_TOLD) {
                continue;
            }
            self.cap_told.insert(what.clone(), desk.cx.now);
            let regarding =
                namespace.as_deref().map_or_else(|| self.own_object(), |name| cluster_object("v1", "Namespace", name));
            let key = format!("cap/{what}/{}", desk.cx.wall.as_second() / 600);
            // Beside the caps: it is one in ten minutes, and it is about them.
            let draft = EventDraft {
                namespace: CLUSTER_EVENTS.to_owned(),
                event_type: EventType::Warning,
                reason: Reason::CapReached,
                action: EventAction::Cap,
                regarding,
                related: None,
                note: note(false, &format!("the bound on effects a minute was hit for {what}: the rest follows later")),
                key: key.clone(),
            };
            let id = EffectId(key);
            self.flights.insert(id.clone(), Flight { task: None, step: Step::Announce, since: desk.cx.now });
            desk.out.effects.push(Planned { id, effect: Effect::EmitEvent(draft) });
        }
    }

    fn own_object(&self) -> ObjectRef {
        cluster_object("v1", "Namespace", &self.settings.own_namespace)
    }
}

/// Where the API server wants Events about cluster-scoped objects.
const CLUSTER_EVENTS: &str = "default";

fn cluster_object(api_version: &str, kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
        uid: String::new(),
    }
}
