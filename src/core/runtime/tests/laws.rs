//! What holds for every history.

use proptest::prelude::*;

use crate::core::policy::RuntimeEnforcement;
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState};

use super::world::*;

#[derive(Clone, Debug)]
enum Deed {
    Create { task: u8, image: u8, ill: u8 },
    Change { pod: u8, ill: u8 },
    Run { pod: u8 },
    Delete { pod: u8 },
    Pass { seconds: i64 },
    Jump { seconds: i64 },
    Bring { image: u8 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0_u8..3, 0_u8..3, 0_u8..6).prop_map(|(task, image, ill)| Deed::Create { task, image, ill }),
        3 => (0_u8..12, 0_u8..6).prop_map(|(pod, ill)| Deed::Change { pod, ill }),
        1 => (0_u8..12).prop_map(|pod| Deed::Run { pod }),
        1 => (0_u8..12).prop_map(|pod| Deed::Delete { pod }),
        6 => (1_i64..90).prop_map(|seconds| Deed::Pass { seconds }),
        1 => (-4_000_i64..4_000).prop_map(|seconds| Deed::Jump { seconds }),
        1 => (0_u8..3).prop_map(|image| Deed::Bring { image }),
    ]
}

fn ail(pod: crate::core::runtime::sight::PodSight, ill: u8) -> crate::core::runtime::sight::PodSight {
    let words = not_found_words(&pod.image());
    match ill {
        0 => pod.never(),
        1 => pod.not_found(),
        2 => pod.backs_off(&words),
        3 => pod.network(),
        4 => pod.denied(),
        _ => pod.waits("ImagePullBackOff", "Back-off pulling image \"x\""),
    }
}

struct History {
    world: World,
    created: usize,
}

impl History {
    fn new(world: World) -> Self {
        let mut world = world;
        for job in 0..3 {
            world.job(&format!("j{job}"));
        }
        Self { world, created: 0 }
    }

    fn name_of(&self, pod: u8) -> Option<String> {
        let alive: Vec<&String> = self.world.pods.keys().collect();
        let uid = alive.get(usize::from(pod) % alive.len().max(1))?;
        let waits = self.world.pods[*uid].phase == crate::core::runtime::sight::Phase::Pending;
        waits.then(|| uid.trim_start_matches("uid-").to_owned())
    }

    fn perform(&mut self, deed: &Deed) {
        let world = &mut self.world;
        match deed {
            Deed::Create { task, image, ill } => {
                let name = format!("p{:03}", self.created);
                self.created += 1;
                let sight = pod(&name, &format!("app{image}:1"), world.second + world.wall_shift);
                let sight = match task {
                    0 => sight.of(&job("j0")),
                    1 => sight.labelled("task", "t"),
                    _ => sight,
                };
                if *task == 0 && world.jobs["uid-Job-j0"].condition.is_some() {
                    return;
                }
                world.put(ail(sight, *ill));
            }
            Deed::Change { pod, ill } => {
                if let Some(name) = self.name_of(*pod) {
                    self.world.change(&name, |pod| ail(pod, *ill));
                }
            }
            Deed::Run { pod } => {
                if let Some(name) = self.name_of(*pod) {
                    let second = self.world.second + self.world.wall_shift;
                    self.world.change(&name, |pod| pod.runs(second));
                }
            }
            Deed::Delete { pod } => {
                if let Some(name) = self.name_of(*pod) {
                    self.world.delete(&format!("uid-{name}"));
                }
            }
            Deed::Pass { seconds } => world.pass(*seconds),
            Deed::Jump { seconds } => world.wall_shift += seconds,
            Deed::Bring { image } => world.node("n1", &[&format!("docker.io/library/app{image}:1")]),
        }
    }
}

fn written_acts(world: &World) -> usize {
    world.acts().len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_empty_ledger_never_acts_more_than_a_full_one(deeds in prop::collection::vec(deed(), 1..25)) {
        let mut history = History::new(World::new(rules()));
        // But for jumps of the clock: the times in a record are those of the wall.
        for deed in deeds.iter().filter(|deed| !matches!(deed, Deed::Jump { .. })) {
            history.perform(deed);
            history.world.settle();
            let before = written_acts(&history.world);
            // Nothing is left to do for the one that has seen everything.
            let full = std::mem::take(&mut history.world.ledger);
            history.world.restart();
            for _ in 0..8 {
                let plan = history.world.plan();
                for planned in plan.effects {
                    history.world.carry_out(&planned);
                }
            }
            prop_assert_eq!(written_acts(&history.world), before, "after {:?}", deed);
            history.world.ledger = full;
            let records: Vec<_> = history.world.records.values().cloned().collect();
            let now = history.world.now();
            for record in records {
                let _ = history.world.ledger.observe_record(record, now);
            }
        }
    }

    #[test]
    fn audit_writes_nothing_but_events(deeds in prop::collection::vec(deed(), 1..25)) {
        let audit = runtime_with(|rules| rules.enforcement = RuntimeEnforcement::Audit);
        let mut history = History::new(World::new(audit));
        for deed in &deeds {
            history.perform(deed);
        }
        history.world.pass(300);
        prop_assert!(history.world.writes.iter().all(|effect| matches!(effect, Effect::EmitEvent(_))));
        let restarts = history.world.events.iter().filter(|event| event.reason == Reason::BrakeEngaged).count();
        let ours = history.world.events.iter().filter(|event| event.note.starts_with("(audit) ")).count();
        let others = history.world.events.len() - ours;
        prop_assert!(others >= restarts);
    }

    #[test]
    fn nothing_that_ran_is_ended_and_nothing_is_acted_upon_before_its_record(deeds in prop::collection::vec(deed(), 1..30)) {
        let mut history = History::new(World::new(rules()));
        for deed in &deeds {
            history.perform(deed);
        }
        history.world.pass(200);
        let mut recorded = std::collections::BTreeSet::new();
        for effect in &history.world.writes {
            match effect {
                Effect::WriteRecord { record, .. } => {
                    recorded.insert(record.task.clone());
                }
                Effect::FailJob { job, .. } => {
                    prop_assert!(recorded.iter().any(|task| task.uid == job.uid));
                }
                Effect::DeletePod { .. } | Effect::FailPod { .. } => prop_assert!(!recorded.is_empty()),
                Effect::LookUpOwner { .. }
                | Effect::JudgeTemplate { .. }
                | Effect::RemoveRecord { .. }
                | Effect::MarkOwner { .. }
                | Effect::UnmarkJob { .. }
                | Effect::EmitEvent(_) => {}
            }
        }
    }

    #[test]
    fn no_act_comes_before_its_grace_whatever_the_clock_does(
        jumps in prop::collection::vec((1_i64..8, -5_000_i64..5_000), 1..3),
        ill in 0_u8..6,
    ) {
        // Each jump ahead is believed to be one step of 20 s at most.
        let grace = 60 + 20 * i64::try_from(jumps.len()).unwrap_or(0);
        let mut rules = rules();
        let long = std::time::Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        rules.grace.never_pull = long;
        rules.grace.not_found = long;
        rules.grace.unauthorized = long;
        let mut world = World::new(rules);
        let job = world.job("j");
        world.put(ail(pod("p", "app:1", 0).of(&job), ill));
        for (seconds, jump) in jumps {
            world.pass(seconds);
            world.wall_shift += jump;
            world.settle();
        }
        while world.second < 59 {
            world.pass(1);
            prop_assert!(world.acts().is_empty(), "after {} s", world.second);
        }
    }

    #[test]
    fn words_that_nobody_knows_are_never_permanent(words in "[a-z ]{0,60}", reason in prop_oneof!["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"]) {
        let mut world = World::new(rules());
        let job = world.job("j");
        world.put(pod("p", "app:1", 0).of(&job).waits(&reason, &words));
        world.pass(600);
        world.change("p", |pod| pod.waits("ImagePullBackOff", &words));
        world.change("p", |pod| pod.waits("ErrImagePull", &words));
        world.pass(600);
        prop_assert!(world.acts().is_empty());
        prop_assert!(world.records.values().all(|sight| sight.record.state != FailureState::PermanentlyFailed));
    }

    #[test]
    fn what_is_over_leaves_nothing(deeds in prop::collection::vec(deed(), 1..25)) {
        let mut history = History::new(World::new(rules()));
        for deed in &deeds {
            history.perform(deed);
        }
        let uids: Vec<String> = history.world.pods.keys().cloned().collect();
        for uid in uids {
            history.world.delete(&uid);
        }
        for job in history.world.jobs.values_mut() {
            if let Some(facts) = &mut job.facts.job {
                facts.finished = true;
            }
        }
        history.world.pass(2 * 3600);
        // What a record tells of days ago is believed when it is first heard of; a clock that jumps is not.
        history.world.second += 2 * 24 * 3600 + 8_000;
        history.world.restart();
        history.world.pass(3 * 3600);
        history.world.second += 2 * 24 * 3600;
        history.world.restart();
        history.world.pass(3600);
        prop_assert_eq!(history.world.records.len(), 0);
        prop_assert_eq!((history.world.ledger.pods_kept(), history.world.ledger.tasks_kept()), (0, 0));
    }
}
