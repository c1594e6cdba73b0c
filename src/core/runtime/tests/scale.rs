//! Many at once: what it takes, and that a plan stays quick.

use std::time::{Duration, Instant};

use crate::core::runtime::effect::FailureState;

use super::world::*;

#[test]
fn a_thousand_jobs_that_fail_at_once_are_all_recorded_within_minutes_and_each_plan_is_bounded() {
    let mut world = World::new(rules());
    for index in 0..1_000 {
        let job = world.job(&format!("j{index}"));
        world.put(pod(&format!("p{index}"), "nope:1", 0).of(&job).never());
    }
    let mut slowest = Duration::ZERO;
    while world.second < 120 && world.records.len() < 1_000 {
        for _ in 0..8 {
            let begun = Instant::now();
            let plan = world.plan();
            slowest = slowest.max(begun.elapsed());
            assert!(plan.effects.len() <= 250 + 250 + 50 + 2);
            if plan.effects.is_empty() {
                break;
            }
            for planned in plan.effects {
                world.carry_out(&planned);
            }
        }
        world.second += 1;
    }
    eprintln!("all recorded after {} s, the slowest plan took {slowest:?}", world.second);
    assert_eq!(world.records.len(), 1_000);
    world.pass(150);
    let failed = world.records.values().filter(|sight| sight.record.state == FailureState::PermanentlyFailed).count();
    assert_eq!(failed, 1_000, "the records are not held up by the bound on acts");
    assert!(world.writes.len() <= 1_000 * 6);
}
