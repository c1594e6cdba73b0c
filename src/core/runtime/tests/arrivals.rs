//! What counts as the arrival of an image, and what does not: that a node lists it is no news by itself.

use crate::core::cause::FailureClass;
use crate::core::inventory::{Inventory, InventorySettings};
use crate::core::node::NodeFacts;
use crate::core::reason::Reason;
use crate::core::runtime::effect::FailureState;
use crate::core::runtime::sight::PodSight;

use super::world::*;

const IMAGE: &str = "docker.io/library/app:1";

fn state(world: &World) -> FailureState {
    world.only_record().record.state
}

/// A new process: it sees everything for the first time, the nodes too.
fn begin_anew(world: &mut World, nodes: Vec<NodeFacts>) {
    world.inventory = Inventory::new(InventorySettings::default());
    let now = world.now();
    for node in nodes {
        world.inventory.apply(node, now);
    }
    world.inventory.set_synced(true);
    world.restart();
}

/// A task whose pods land on `n1` for ever, though `n2` has held the image all the time (it is full).
fn exhausted_beside_a_holder() -> World {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 2));
    world.node("n2", &[IMAGE]);
    for round in 0..2 {
        world.put(pod(&format!("p{round}"), "app:1", world.second).labelled("task", "t").never());
        world.pass(100);
    }
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::PermanentlyFailed, Reason::PullRetriesExhausted));
    world
}

/// A task that failed because its image was on no node.
fn failed_for_all() -> World {
    let mut world = World::new(rules());
    world.node("n2", &[]);
    world.put(pod("p", "app:1", 0).labelled("task", "t").never());
    world.pass(100);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::PermanentlyFailed, Reason::PullPermanentlyFailed));
    world
}

#[test]
fn what_a_node_has_always_listed_is_no_arrival_however_much_comes_to_others() {
    let mut world = exhausted_beside_a_holder();
    for other in ["other:1", "other:2", "other:3"] {
        world.node("n1", &[&format!("docker.io/library/{other}")]);
        world.pass(660);
    }
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
    world.node("n1", &[IMAGE]);
    world.pass(2);
    assert_eq!(state(&world), FailureState::Resolved, "this is one");
}

#[test]
fn a_machine_made_since_that_brings_the_image_is_an_arrival() {
    let mut world = exhausted_beside_a_holder();
    let mut made = node("n3", &[IMAGE]);
    made.created = world.now();
    let now = world.now();
    world.inventory.apply(made, now);
    world.ledger.reconsider();
    world.pass(2);
    assert_eq!(state(&world), FailureState::Resolved);
}

#[test]
fn a_new_process_takes_nothing_for_an_arrival_that_may_have_been_there() {
    let mut world = exhausted_beside_a_holder();
    begin_anew(&mut world, vec![node("n1", &[]), node("n2", &[IMAGE])]);
    world.pass(300);
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
}

#[test]
fn what_came_while_nobody_looked_is_an_arrival_where_the_absence_was_proven() {
    let mut world = failed_for_all();
    begin_anew(&mut world, vec![node("n1", &[]), node("n2", &[])]);
    world.pass(60);
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
    begin_anew(&mut world, vec![node("n1", &[]), node("n2", &[IMAGE])]);
    world.pass(2);
    assert_eq!(state(&world), FailureState::Resolved);
}

#[test]
fn without_a_pod_that_tells_where_the_task_could_go_nothing_arrives() {
    let mut world = World::new(rules());
    let job = world.job("j");
    let mut confined = pod("p", "app:1", 0).of(&job).never();
    confined.facts.placement.node_selector.insert("kubernetes.io/hostname".to_owned(), "n1".to_owned());
    world.put(confined);
    world.pass(100);
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
    assert!(world.pods.is_empty());
    begin_anew(&mut world, vec![node("n1", &[])]);
    world.pass(200);
    world.node("n2", &[IMAGE]);
    world.node("n1", &[]);
    world.pass(200);
    assert_eq!(state(&world), FailureState::PermanentlyFailed, "a node that is none for this Job");
}

/// A labelled task that failed on an image that its registry did not give.
fn failed_by_registry(ail: fn(PodSight) -> PodSight) -> World {
    let mut world = World::new(rules());
    let mut first = ail(pod("p", "team/app:2", 0).labelled("task", "t"));
    first.facts.pull_secrets = vec!["mine".to_owned()];
    world.put(first);
    world.pass(40);
    world.change("p", |pod| pod.waits("ImagePullBackOff", "Back-off pulling image \"team/app:2\""));
    world.change("p", ail);
    world.pass(60);
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
    world
}

/// A pod of nobody's task starts a container of the image.
fn another_starts(world: &mut World, image: &str, namespace: &str, secret: &str) {
    world.second += 2;
    let mut other = pod("other", image, world.second - 1).runs(world.second - 1);
    other.facts.namespace = namespace.to_owned();
    other.facts.pull_secrets = vec![secret.to_owned()];
    world.put(other);
    world.pass(2);
}

fn unauthorized(pod: PodSight) -> PodSight {
    let image = pod.image();
    let message = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": pulling from host \
         registry.example failed with status code [manifests 2]: 401 Unauthorized"
    );
    pod.waits("ErrImagePull", &message)
}

#[test]
fn an_image_that_another_task_can_start_was_pushed_meanwhile() {
    for ail in [PodSight::not_found, PodSight::denied] {
        let mut world = failed_by_registry(ail);
        another_starts(&mut world, "team/app:1", NS, "mine");
        another_starts(&mut world, "team/app:2", "elsewhere", "mine");
        assert_eq!(state(&world), FailureState::PermanentlyFailed);
        another_starts(&mut world, "docker.io/team/app:2", NS, "theirs");
        assert_eq!(state(&world), FailureState::Resolved);
    }
}

#[test]
fn what_another_may_pull_with_other_secrets_says_nothing_of_ours() {
    let mut world = failed_by_registry(unauthorized);
    assert_eq!(world.only_record().record.class, Some(FailureClass::Unauthorized));
    another_starts(&mut world, "team/app:2", NS, "theirs");
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
    world.delete("uid-other");
    another_starts(&mut world, "team/app:2", NS, "mine");
    assert_eq!(state(&world), FailureState::Resolved);
}

#[test]
fn a_start_elsewhere_says_nothing_of_a_pod_that_never_pulls() {
    let mut world = failed_for_all();
    another_starts(&mut world, "app:1", NS, "mine");
    assert_eq!(state(&world), FailureState::PermanentlyFailed);
}
