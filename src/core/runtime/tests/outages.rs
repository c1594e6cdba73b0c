//! What an outage must not do: use up the tries of a wide Job, or be forgotten by the next leader.

use crate::core::runtime::effect::{Effect, FailureState};

use super::world::*;

#[test]
fn the_pods_of_a_wide_job_that_wait_side_by_side_are_one_try() {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 3));
    let job = world.job("wide");
    for index in 0..10 {
        world.put(pod(&format!("p{index}"), "registry.example/app:1", 0).of(&job).network());
    }
    world.pass(900);
    assert!(world.acts().is_empty(), "{:?}", world.acts());
    assert_eq!(world.only_record().record.state, FailureState::Retrying);
    // Given up and made anew, one after the other: that is trying again.
    for index in 0..3 {
        world.delete(&format!("uid-p{index}"));
        world.put(pod(&format!("q{index}"), "registry.example/app:1", world.second).of(&job).network());
        world.pass(70);
    }
    assert!(world.acts().iter().any(|act| matches!(act, Effect::FailJob { .. })), "{:?}", world.only_record().record);
}

#[test]
fn the_next_leader_knows_that_the_clocks_began_anew_after_an_outage() {
    let mut world = World::new(rules());
    let jobs: Vec<_> = (0..6).map(|index| world.job(&format!("j{index}"))).collect();
    for (index, job) in jobs.iter().enumerate() {
        world.put(pod(&format!("p{index}"), &format!("registry.example/app{index}:1"), 0).of(job).network());
    }
    world.pass(600);
    for index in 1..6 {
        world.change(&format!("p{index}"), |pod| pod.with_policy(crate::core::pod::PullPolicy::Always).runs(601));
    }
    world.change("p0", |pod| pod.denied());
    world.pass(10);
    let released = world.second;
    let record = world.records.values().find(|sight| sight.record.image.contains("app0")).expect("its record");
    let first = record.record.first_seen.expect("a time").as_second() - START;
    assert!(first >= released - 15, "first seen at {first}, the outage ended before {released}");
    world.restart();
    world.pass(40);
    assert!(world.acts().is_empty(), "its grace is not over: {:?}", world.acts());
}
