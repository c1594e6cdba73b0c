//! While the API server, or a registry, is away: asked with patience, and nothing made worse.

use std::time::Duration;

use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState, Outcome};
use crate::core::runtime::ledger::News;
use crate::core::runtime::sight::{DenialSight, Phase};

use super::world::*;

/// Plans as often as a busy ledger does, and lets effects fail of which a test says so. Gives how many failed.
fn fail_for(world: &mut World, seconds: i64, fails: impl Fn(&Effect) -> bool) -> usize {
    let (end, mut failed) = (world.second + seconds, 0);
    while world.second < end {
        for _ in 0..50 {
            for planned in world.plan().effects {
                if fails(&planned.effect) {
                    failed += 1;
                    let now = world.now();
                    let _ = world.ledger.outcome(&planned.id, Outcome::Failed("503".to_owned()), now);
                } else {
                    world.carry_out(&planned);
                }
            }
        }
        world.second += 1;
    }
    failed
}

const fn is_read(effect: &Effect) -> bool {
    matches!(effect, Effect::LookUpOwner { .. } | Effect::JudgeTemplate { .. })
}

#[test]
fn an_owner_that_cannot_be_read_is_not_asked_for_at_every_plan() {
    let mut world = World::new(runtime_with(|rules| rules.task_kinds = vec![listed("argoproj.io", "Workflow")]));
    let step = owner("example.org/v1", "Step", "s");
    world.put(pod("p", "nope:1", 0).of(&step).never());
    let failed = fail_for(&mut world, 60, is_read);
    assert!((3..=8).contains(&failed), "{failed}");
    world.pass(90);
    assert!(!world.records.is_empty(), "and is asked again");
}

#[test]
fn a_read_that_failed_for_no_task_is_no_news() {
    let mut world = World::new(runtime_with(|rules| rules.task_kinds = vec![listed("argoproj.io", "Workflow")]));
    world.put(pod("p", "nope:1", 0).of(&owner("example.org/v1", "Step", "s")).never());
    let plan = world.plan();
    let now = world.now();
    let news = world.ledger.outcome(&plan.effects[0].id, Outcome::Failed("503".to_owned()), now);
    assert_eq!(news, News::None);
}

#[test]
fn a_template_that_cannot_be_judged_is_not_asked_for_at_every_plan() {
    let mut world = World::new(runtime_with(|rules| rules.fail_denied_after = Some(Duration::from_secs(300))));
    let job = world.job("j");
    let now = world.now();
    let _ = world.ledger.observe_denial(DenialSight { namespace: NS.to_owned(), job, at: now }, now);
    let failed = fail_for(&mut world, 60, is_read);
    assert!((3..=8).contains(&failed), "{failed}");
}

#[test]
fn an_event_that_finds_no_room_is_offered_with_patience_and_holds_up_no_act() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    let failed = fail_for(&mut world, 62, |effect| matches!(effect, Effect::EmitEvent(_)));
    assert!((3..=8).contains(&failed), "{failed}");
    assert!(world.jobs[&job.uid].condition.is_some(), "failed in its time");
    world.pass(90);
    assert_eq!(world.told().len(), 1, "of the end, not of what came before it: {:?}", world.told());
}

#[test]
fn dead_pods_are_not_deleted_while_their_registry_is_out() {
    let mut world = World::new(rules());
    let words = not_found_words("registry.example/app:1");
    world.put(pod("p0", "registry.example/app:1", 0).labelled("task", "t").not_found());
    world.change("p0", |pod| pod.backs_off(&words));
    world.pass(61);
    world.change("p0", |pod| pod.not_found());
    world.pass(2);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
    assert_eq!(world.pods["uid-p0"].phase, Phase::Failed, "kept as evidence");
    for index in 0..6 {
        let image = format!("registry.example/other{index}:1");
        world.put(pod(&format!("q{index}"), &image, world.second).labelled("task", &format!("o{index}")).network());
    }
    world.pass(1);
    assert!(world.told().contains(&Reason::BrakeEngaged));
    // A newer one dies by itself: of the two, one is too many.
    world.put(pod("p1", "registry.example/app:1", world.second).labelled("task", "t").not_found());
    world.pass(1);
    world.change("p1", |mut pod| {
        pod.phase = Phase::Failed;
        pod
    });
    world.pass(100);
    assert_eq!(world.deletes(), 0);
    (0..6).for_each(|index| world.delete(&format!("uid-q{index}")));
    world.pass(700);
    assert!(world.told().contains(&Reason::BrakeReleased));
    let left: Vec<&str> = world.pods.keys().map(String::as_str).collect();
    assert_eq!(left, ["uid-p1"], "the outage is over");
}
