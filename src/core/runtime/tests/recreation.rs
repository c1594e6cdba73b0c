//! A failed task is not tried again, until there is news.

use crate::core::pod::PullPolicy;
use crate::core::policy::{FailOwner, Policy};
use crate::core::reason::Reason;
use crate::core::refusal::Refusals as _;
use crate::core::runtime::effect::FailureState;
use crate::core::runtime::recreation::Recreation;
use crate::core::runtime::sight::PodSight;

use super::world::*;

fn failed() -> World {
    let mut world = World::new(rules());
    world.put(pod("p", "nope:1", 0).labelled("task", "t1").never());
    world.pass(120);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
    world
}

fn index(world: &World) -> Recreation {
    let mut index = Recreation::default();
    for sight in world.records.values() {
        index.observe(&sight.record);
    }
    index
}

fn is_refused(world: &World, pod: &PodSight) -> bool {
    let policies: Vec<&Policy> = world.policies.iter().map(|entry| &*entry.policy).collect();
    index(world).refusal(&pod.facts, &policies, world.now()).is_some()
}

fn again() -> PodSight {
    pod("again", "nope:1", 200).labelled("task", "t1").never()
}

#[test]
fn the_same_again_is_refused_with_the_first_cause_and_remedy() {
    let world = failed();
    let policies: Vec<&Policy> = world.policies.iter().map(|entry| &*entry.policy).collect();
    let refusal = index(&world).refusal(&again().facts, &policies, world.now()).expect("refused");
    let record = &world.only_record().record;
    assert_eq!((refusal.image.as_str(), &refusal.message), ("nope:1", &record.message));
    assert_eq!(refusal.record, record.name);
    let written_otherwise = pod("again", "docker.io/library/nope:1", 200).labelled("task", "t1").never();
    assert!(is_refused(&world, &written_otherwise), "the same image, written otherwise");
}

#[test]
fn another_task_image_pull_policy_or_secret_is_not_the_same() {
    let world = failed();
    assert!(is_refused(&world, &again()));
    assert!(!is_refused(&world, &pod("a", "nope:1", 200).labelled("task", "t2").never()));
    assert!(!is_refused(&world, &pod("a", "nope:2", 200).labelled("task", "t1").never()));
    assert!(!is_refused(&world, &again().with_policy(PullPolicy::IfNotPresent)));
    let mut secret = again();
    secret.facts.pull_secrets.push("new".to_owned());
    assert!(!is_refused(&world, &secret));
    let mut elsewhere = again();
    elsewhere.facts.namespace = "other".to_owned();
    assert!(!is_refused(&world, &elsewhere));
}

#[test]
fn more_pull_secrets_than_a_record_holds_are_cut_and_still_the_same() {
    let with_secrets = |mut pod: PodSight, count: usize| {
        // Each is named twice: by the pod and by its service account.
        pod.facts.pull_secrets = (0..count).flat_map(|index| vec![format!("secret-{index:03}"); 2]).collect();
        pod
    };
    let mut world = World::new(rules());
    world.put(with_secrets(pod("p", "nope:1", 0).labelled("task", "t1").never(), 40));
    world.pass(120);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.failures[0].pull_secrets.len()), (FailureState::PermanentlyFailed, 32));
    assert!(is_refused(&world, &with_secrets(again(), 40)));
    assert!(!is_refused(&world, &with_secrets(again(), 31)));
}

#[test]
fn an_image_that_newly_comes_to_an_eligible_node_clears_it() {
    let mut world = failed();
    world.pass(600);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
    world.node("n1", &["docker.io/library/nope:1"]);
    world.pass(5);
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
    assert!(!is_refused(&world, &again()));
}

#[test]
fn a_container_of_the_image_that_starts_clears_it() {
    let mut world = failed();
    let start = world.second + 1;
    world.second += 2;
    world.put(pod("late", "nope:1", start).labelled("task", "t1").runs(start));
    world.pass(5);
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
}

#[test]
fn another_image_of_the_task_that_starts_clears_nothing() {
    let mut world = World::new(rules());
    world.put(pod("p", "nope:1", 0).labelled("task", "t1").never());
    // It does not start at once either, and is in the record too.
    world.put(pod("q", "registry.example/slow:1", 0).labelled("task", "t1").network());
    world.pass(120);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.image.as_str()), (FailureState::PermanentlyFailed, "nope:1"));
    assert_eq!(record.failures.len(), 2);
    let now = world.second + 1;
    world.second += 2;
    world.change("q", |pod| pod.runs(now));
    world.pass(60);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
    assert!(is_refused(&world, &again()));
    world.put(pod("late", "nope:1", world.second).labelled("task", "t1").runs(world.second));
    world.pass(5);
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
}

#[test]
fn a_person_who_deletes_the_record_clears_it_and_gives_a_new_grace() {
    let mut world = failed();
    let name = world.only_record().record.name.clone();
    world.delete_record(&name);
    assert!(!is_refused(&world, &again()));
    let acts = world.acts().len();
    world.put(pod("again", "nope:1", world.second).labelled("task", "t1").never());
    world.pass(55);
    assert_eq!(world.acts().len(), acts);
    world.pass(30);
    assert!(world.acts().len() > acts);
}

#[test]
fn after_its_expiry_it_may_be_tried_for_a_minute_and_has_the_whole_grace() {
    let mut world = failed();
    let failed_at = world.only_record().record.failed_at.expect("failed");
    let second = failed_at.as_second() - START;
    world.pass(second + 3600 - world.second - 1);
    assert!(is_refused(&world, &again()));
    world.pass(2);
    assert!(!is_refused(&world, &again()));
    let (acts, writes) = (world.acts().len(), world.writes.len());
    world.put(pod("again", "nope:1", world.second).labelled("task", "t1").never());
    world.pass(50);
    assert_eq!(world.acts().len(), acts);
    world.pass(30);
    assert!(world.acts().len() > acts, "and fails again");
    assert!(is_refused(&world, &again()));
    assert!(world.writes.len() - writes <= 6, "{}", world.writes.len() - writes);
}

#[test]
fn a_record_without_a_matching_policy_and_a_job_that_goes_on_refuse_nothing() {
    let world = failed();
    assert!(index(&world).refusal(&again().facts, &[], world.now()).is_none());
    let mut pods = World::new(fail_owner(FailOwner::Pod));
    let job = pods.job("j");
    pods.put(pod("p", "nope:1", 0).of(&job).never());
    pods.pass(120);
    assert!(!is_refused(&pods, &pod("q", "nope:1", 200).of(&job).never()));
}

#[test]
fn pods_of_a_service_and_of_owners_that_are_not_failed_are_never_refused() {
    let web = owner("apps/v1", "ReplicaSet", "web");
    let mut services = World::new(rules());
    services.put(pod("p", "nope:1", 0).of(&web).never());
    services.pass(120);
    assert_eq!(services.only_record().record.state, FailureState::PermanentlyFailed);
    assert!(!is_refused(&services, &pod("q", "nope:1", 200).of(&web).never()), "another one may start elsewhere");

    let mut told_only = World::new(fail_owner(FailOwner::None));
    let job = told_only.job("j");
    told_only.put(pod("p", "nope:1", 0).of(&job).never());
    told_only.pass(120);
    assert_eq!(told_only.only_record().record.state, FailureState::PermanentlyFailed);
    assert!(!is_refused(&told_only, &pod("q", "nope:1", 200).of(&job).never()), "the Job goes on");
}

#[test]
fn a_failed_task_that_is_tried_with_another_bad_image_fails_for_that_one_too() {
    let mut world = failed();
    let first = world.only_record().record.failed_at;
    world.put(pod("q", "nope:2", world.second).labelled("task", "t1").never());
    world.pass(55);
    assert_eq!(world.only_record().record.image, "nope:1", "it has its own grace");
    world.pass(65);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.image.as_str()), (FailureState::PermanentlyFailed, "nope:2"));
    assert!(record.failed_at > first);
    assert!(is_refused(&world, &pod("again", "nope:2", world.second).labelled("task", "t1").never()));
    assert_eq!(world.pods.len(), 1, "the newest is kept, the older one collected");
    let told = world.told().into_iter().filter(|reason| *reason == Reason::PullPermanentlyFailed).count();
    assert_eq!(told, 2);
    let (acts, writes) = (world.acts().len(), world.writes.len());
    world.pass(300);
    assert_eq!((world.acts().len(), world.writes.len()), (acts, writes), "and that is all");
}
