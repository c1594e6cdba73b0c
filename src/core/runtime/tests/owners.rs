//! Owners that are gone, or that we may not touch: told of as far as that goes, and then left alone.

use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState};
use crate::core::runtime::guard::{Guard, pod_may_be_collected, pod_may_be_failed};
use crate::core::runtime::sight::{ContainerState, EverStarted};

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
fn of_a_job_that_is_gone_nobody_says_that_its_image_can_be_pulled() {
    for deleted in [true, false] {
        let mut world = World::new(rules());
        let job = world.job("j");
        world.put(pod("p", "registry.example/app:1", 0).of(&job).network());
        world.pass(100);
        if deleted {
            world.jobs.remove(&job.uid);
            world.delete("uid-p");
        } else {
            world.change("p", |pod| pod.runs(101));
        }
        world.pass(1200);
        assert_eq!(world.only_record().record.state, FailureState::Resolved);
        let told = world.events.iter().find(|event| event.reason == Reason::PullResolved).expect("told");
        assert_eq!(told.note.contains("can be pulled again"), !deleted, "{}", told.note);
        assert_eq!(told.note.contains("for 15 minutes"), deleted, "{}", told.note);
    }
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

#[test]
fn a_bare_pod_of_which_a_container_runs_is_told_of_as_failing_and_its_task_is_not_failed() {
    let mut world = World::new(rules());
    let mut half = pod("half", "nope:1", 0).labelled("task", "t").never();
    let mut beside = half.containers[0].clone();
    beside.name = "beside".to_owned();
    beside.state = ContainerState::Running { since: Some(at(1)) };
    (beside.ever_started, beside.last_started) = (EverStarted::Yes, Some(at(1)));
    half.containers.push(beside);
    let mut running = half.facts.containers[0].clone();
    running.name = "beside".to_owned();
    running.image = "there:1".to_owned();
    running.parsed = crate::core::image::ImageName::parse("there:1");
    half.facts.containers.push(running);
    world.put(half);
    world.pass(300);
    assert!(world.acts().is_empty(), "{:?}", world.acts());
    assert_eq!(world.only_record().record.state, FailureState::Retrying);
    assert!(!world.told().contains(&Reason::PullPermanentlyFailed));
}
