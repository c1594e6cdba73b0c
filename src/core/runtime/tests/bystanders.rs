//! What stands beside a task and is not its trouble.

use crate::core::image::ImageName;
use crate::core::pod::ContainerKind;
use crate::core::runtime::effect::Effect;
use crate::core::runtime::sight::{ContainerState, EverStarted, PodSight};

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
