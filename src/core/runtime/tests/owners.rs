//! Owners that are gone, or that we may not touch: told of as far as that goes, and then left alone.

use crate::core::runtime::effect::Effect;
use crate::core::runtime::guard::{Guard, pod_may_be_collected, pod_may_be_failed};

use super::world::*;

#[test]
fn a_listed_owner_that_is_gone_is_marked_once_in_vain_and_not_asked_for_again() {
    let mut world = World::new(runtime_with(|rules| rules.task_kinds = vec![listed("tekton.dev", "TaskRun")]));
    let gone = owner("tekton.dev/v1", "TaskRun", "gone");
    world.put(pod("p", "nope:1", 0).of(&gone).never());
    world.pass(120);
    for _ in 0..50 {
        world.second += 1;
        let plan = world.plan();
        assert!(!plan.effects.iter().any(|planned| matches!(planned.effect, Effect::MarkOwner { .. })));
        plan.effects.iter().for_each(|planned| world.carry_out(planned));
    }
    assert!(world.acts().is_empty());
}

#[test]
fn a_pod_whose_image_has_come_and_that_waits_for_its_next_one_is_not_the_pod_that_was_judged() {
    let judged = pod("p", "first:1", 0).never();
    let images: Vec<String> =
        crate::core::runtime::symptoms::symptoms(&judged).iter().map(|symptom| symptom.image_key()).collect();
    let [image] = &images[..] else { panic!("{images:?}") };
    assert_eq!(pod_may_be_failed(&judged, image), Ok(()));
    assert_eq!(pod_may_be_collected(&judged, image), Ok(()));
    let now = pod("p", "second:1", 0).network();
    assert_eq!(pod_may_be_failed(&now, image), Err(Guard::NotStuck));
    assert_eq!(pod_may_be_collected(&now, image), Err(Guard::NotStuck));
}
