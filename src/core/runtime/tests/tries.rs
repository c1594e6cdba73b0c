//! What is one try of a wide Job, and what is none.

use crate::core::pod::OwnerRef;
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState};

use super::world::*;

const WIDE: usize = 8;

/// As many pods of a Job as it may have at once, on a registry that does not answer.
fn made(world: &mut World, job: &OwnerRef, round: usize, count: usize) {
    for index in 0..count {
        let name = format!("p{round}-{index}");
        world.put(pod(&name, "registry.example/app:1", world.second).of(job).network());
    }
}

/// Somebody takes them away, one after the other as a watch shows it.
fn gone(world: &mut World, round: usize, count: usize) {
    for index in 0..count {
        world.delete(&format!("uid-p{round}-{index}"));
        if index % 3 == 0 {
            world.pass(1);
        }
    }
}

fn ends(world: &World) -> bool {
    world.writes.iter().any(|effect| match effect {
        Effect::WriteRecord { record, .. } => record.state == FailureState::PermanentlyFailed,
        Effect::FailJob { .. } => true,
        _ => false,
    })
}

#[test]
fn a_wide_job_that_is_suspended_and_resumed_has_had_one_try_more() {
    let mut world = World::new(rules());
    let job = world.job("wide");
    for round in 0..4 {
        made(&mut world, &job, round, WIDE);
        // Some are given up before their grace is over, as a quota changes.
        world.pass(if round % 2 == 0 { 100 } else { 20 });
        world.job_mut(&job).suspended = true;
        gone(&mut world, round, WIDE);
        world.pass(30);
        world.job_mut(&job).suspended = false;
    }
    assert!(!ends(&world), "{:?}", world.told());
    made(&mut world, &job, 4, WIDE);
    world.pass(59);
    assert_eq!(world.only_record().record.attempts, 4);
    assert!(!ends(&world), "the fifth try has its own grace");
    world.pass(40);
    let record = &world.only_record().record;
    assert_eq!((record.reason, record.attempts), (Reason::PullRetriesExhausted, 5));
    assert!(world.jobs[&job.uid].condition.is_some());
}

#[test]
fn a_job_that_somebody_deletes_with_its_stuck_pods_has_not_failed() {
    for (max, wait) in [(5, 70), (1, 20)] {
        let mut world = World::new(runtime_with(|rules| rules.max_attempts = max));
        let job = world.job("wide");
        made(&mut world, &job, 0, 5);
        world.pass(wait);
        world.jobs.remove(&job.uid);
        gone(&mut world, 0, 5);
        world.pass(2000);
        assert!(!ends(&world), "{max}: {:?}", world.told());
    }
}

#[test]
fn more_pods_than_a_record_can_name_are_one_try_too() {
    let mut world = World::new(rules());
    let job = world.job("wide");
    made(&mut world, &job, 0, 150);
    world.pass(400);
    assert_eq!(world.only_record().record.attempts, 1);
    world.restart();
    world.pass(400);
    assert_eq!(world.only_record().record.attempts, 1);
    assert!(!ends(&world));
}
