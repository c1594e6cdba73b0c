//! What stands beside a task and is not its trouble.

use crate::core::image::ImageName;
use crate::core::pod::{ContainerKind, OwnerRef};
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, EventAction, FailureState};
use crate::core::runtime::sight::{ContainerState, EverStarted, Phase, PodSight};

use super::world::*;

/// One more container of the pod, as its first one is.
fn with_another(mut pod: PodSight, name: &str, kind: ContainerKind, image: &str) -> PodSight {
    let mut spec = pod.facts.containers[0].clone();
    let mut status = pod.containers[0].clone();
    (spec.name, spec.kind) = (name.to_owned(), kind);
    (spec.image, spec.parsed) = (image.to_owned(), ImageName::parse(image));
    (status.name, status.kind) = (name.to_owned(), kind);
    pod.facts.containers.push(spec);
    pod.containers.push(status);
    pod
}

#[test]
fn a_debug_container_with_a_bad_image_ends_neither_its_pod_nor_its_job() {
    let mut world = World::new(rules());
    let job = world.job("import");
    let debugged = with_another(pod("p", "nope:1", 0).never(), "debug", ContainerKind::Ephemeral, "nope:1");
    for (name, of) in [("p", Some(&job)), ("bare", None)] {
        let mut debugged = debugged.clone();
        (debugged.facts.name, debugged.uid) = (name.to_owned(), format!("uid-{name}"));
        debugged.facts.owner = of.cloned();
        // Its init containers take their time.
        world.put(debugged.waits("PodInitializing", ""));
    }
    world.pass(600);
    assert!(world.writes.is_empty(), "{:?}", world.writes);
    assert_eq!(world.ledger.pods_kept(), 0);
}

/// The pods that a driver of Spark makes are controlled by it, and it is a pod.
#[test]
fn executors_that_fail_are_one_record_of_their_driver_which_is_only_told_of() {
    for ail in [PodSight::never, PodSight::network] {
        let mut world = World::new(rules());
        world.put(pod("driver", "spark:1", 0).runs(1));
        let driver = owner("v1", "Pod", "driver");
        let executor = OwnerRef { uid: "uid-driver".to_owned(), ..driver };
        for index in 0..3 {
            world.put(ail(pod(&format!("e{index}"), "nope:1", 1).of(&executor)));
        }
        for _ in 0..4 {
            world.pass(600);
            world.restart();
        }
        world.delete("uid-e0");
        world.put(ail(pod("e9", "nope:1", world.second).of(&executor)));
        world.pass(1200);
        assert!(world.acts().is_empty(), "{:?}", world.acts());
        let record = &world.only_record().record;
        assert_eq!((record.task.kind.as_str(), record.task.uid.as_str()), ("Pod", "uid-driver"));
        assert_ne!(record.state, FailureState::Resolved);
        assert!(!world.told().contains(&Reason::PullResolved), "{:?}", world.told());
        assert!(world.events.iter().all(|event| event.action == EventAction::Report), "{:?}", world.events);
    }
}

#[test]
fn a_driver_that_is_stuck_itself_is_not_ended_as_long_as_others_of_its_are() {
    let mut world = World::new(rules());
    let executor = OwnerRef { uid: "uid-driver".to_owned(), ..owner("v1", "Pod", "driver") };
    for name in ["a", "z"] {
        world.put(pod(name, "nope:1", 0).of(&executor).never());
    }
    world.put(pod("driver", "nope:1", 0).never());
    world.pass(300);
    assert!(world.acts().is_empty(), "{:?}", world.acts());
    for name in ["a", "z"] {
        world.delete(&format!("uid-{name}"));
    }
    world.pass(300);
    assert_eq!(world.pods["uid-driver"].phase, Phase::Failed, "a bare pod");
}

#[test]
fn pods_that_ran_are_no_attempts_however_they_go() {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 1));
    let mut half = pod("half", "nope:1", 0).labelled("task", "t").network();
    half = with_another(half, "beside", ContainerKind::Main, "there:1");
    half.containers[1].state = ContainerState::Running { since: Some(at(1)) };
    half.containers[1].ever_started = EverStarted::Yes;
    world.put(half);
    world.pass(120);
    world.delete("uid-half");
    world.pass(120);
    let written = |effect: &Effect| matches!(effect, Effect::WriteRecord { record, .. } if record.attempts > 0);
    assert!(!world.writes.iter().any(written), "{:?}", world.writes);
}
