//! What may go wrong, and must not matter.

use std::collections::BTreeSet;

use crate::core::cause::FailureClass;
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState, Outcome};
use crate::core::runtime::ledger::Ledger;
use crate::core::runtime::sight::{DenialSight, Phase};

use super::world::*;

/// A Job, a labelled task of five pods, and a single pod, all without their image. The last of the five, which will be
/// kept, is failed with the others before its own grace is over.
fn troubled() -> World {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("of-job", "nope:1", 0).of(&job).never());
    let of_task = |index| pod(&format!("t{index}"), "nope:1", index).labelled("task", "t").never();
    for index in 0..4 {
        world.put(of_task(index));
    }
    world.put(pod("alone", "nope:1", 0).never());
    world.pass(5);
    world.put(of_task(4));
    world
}

/// What is to come of it, whatever happens on the way.
fn assert_done(world: &World, case: &str) {
    assert!(world.jobs.values().all(|job| job.condition.is_some() && job.facts.marked), "{case}");
    let names: Vec<&str> = world.pods.values().map(|pod| pod.facts.name.as_str()).collect();
    assert_eq!(names, ["alone", "t4"], "{case}");
    assert!(world.pods.values().all(|pod| pod.phase == Phase::Failed), "{case}");
    assert_eq!(world.records.len(), 3, "{case}");
    assert!(world.records.values().all(|sight| sight.record.state == FailureState::PermanentlyFailed), "{case}");
    let mut acted = BTreeSet::new();
    for act in world.acts() {
        let on = match act {
            Effect::FailJob { job, .. } => format!("job {}", job.uid),
            Effect::FailPod { fence, .. } => format!("fail {}", fence.uid),
            Effect::DeletePod { fence, .. } => format!("delete {}", fence.uid),
            other => panic!("{other:?}"),
        };
        assert!(acted.insert(on.clone()), "{case}: {on} twice");
    }
    let told = world.told();
    let failed = told.iter().filter(|reason| **reason == Reason::PullPermanentlyFailed).count();
    assert_eq!(failed, 3, "{case}: {told:?}");
}

/// Like `pass`, but after the `nth` effect the process dies, with or without having heard of the outcome.
fn pass_and_die(world: &mut World, seconds: i64, nth: usize, heard: bool) -> bool {
    let end = world.second + seconds;
    let mut count = 0;
    let mut died = false;
    while world.second < end {
        loop {
            let plan = world.plan();
            if plan.effects.is_empty() {
                break;
            }
            for planned in plan.effects {
                let outcome = world.apply(&planned.effect);
                count += 1;
                let dies = count == nth;
                if !dies || heard {
                    let now = world.now();
                    let _ = world.ledger.outcome(&planned.id, outcome, now);
                }
                if dies {
                    world.restart();
                    died = true;
                    break;
                }
            }
        }
        world.second += 1;
    }
    died
}

#[test]
fn killed_between_any_two_effects_nothing_is_done_twice_and_nothing_forgotten() {
    let mut plain = troubled();
    plain.pass(400);
    assert_done(&plain, "plain");
    for heard in [true, false] {
        let mut nth = 1;
        loop {
            let mut world = troubled();
            let died = pass_and_die(&mut world, 400, nth, heard);
            assert_done(&world, &format!("killed after effect {nth}, heard {heard}"));
            if !died {
                break;
            }
            nth += 1;
        }
        assert!(nth > 15, "{nth}");
    }
}

#[test]
fn killed_every_few_seconds_it_still_comes_to_an_end() {
    let mut world = troubled();
    for _ in 0..30 {
        world.pass(35);
        world.restart();
    }
    assert_done(&world, "restless");
}

/// Shows a ledger the whole world, as a watch would have by now.
fn show(world: &World, ledger: &mut Ledger, known: &mut BTreeSet<String>, records: &mut BTreeSet<String>) {
    let now = world.now();
    for sight in world.records.values() {
        records.insert(sight.record.name.clone());
        let _ = ledger.observe_record(sight.clone(), now);
    }
    for gone in records.iter().filter(|name| !world.records.contains_key(*name)) {
        let _ = ledger.forget_record(NS, gone, now);
    }
    for pod in world.pods.values() {
        known.insert(pod.uid.clone());
        let _ = ledger.observe_pod(pod.clone(), now);
    }
    for gone in known.iter().filter(|uid| !world.pods.contains_key(*uid)) {
        let _ = ledger.forget_pod(gone, now);
    }
    records.retain(|name| world.records.contains_key(name));
    known.retain(|uid| world.pods.contains_key(uid));
}

#[test]
fn two_leaders_at_once_do_it_once() {
    let mut world = troubled();
    let mut other = world.fresh_ledger();
    let (mut known, mut records) = (world.pods.keys().cloned().collect(), BTreeSet::new());
    for _ in 0..400 {
        for round in 0..6 {
            // Both decide before either has acted.
            let mine = world.plan();
            let theirs = world.plan_of(&mut other);
            if mine.effects.is_empty() && theirs.effects.is_empty() {
                break;
            }
            for planned in mine.effects {
                world.carry_out(&planned);
            }
            std::mem::swap(&mut world.ledger, &mut other);
            for planned in theirs.effects {
                world.carry_out(&planned);
            }
            std::mem::swap(&mut world.ledger, &mut other);
            show(&world, &mut other, &mut known, &mut records);
            let (mut own, mut own_records) = (known.clone(), records.clone());
            let mut ledger = std::mem::take(&mut world.ledger);
            show(&world, &mut ledger, &mut own, &mut own_records);
            world.ledger = ledger;
            assert!(round < 6);
        }
        world.second += 1;
    }
    assert_done(&world, "two leaders");
}

#[test]
fn outcomes_that_come_twice_or_from_nowhere_change_nothing() {
    let mut world = troubled();
    let mut all = Vec::new();
    for _ in 0..200 {
        loop {
            let plan = world.plan();
            if plan.effects.is_empty() {
                break;
            }
            for planned in plan.effects {
                world.carry_out(&planned);
                all.push(planned);
            }
            let now = world.now();
            for planned in &all {
                for outcome in [Outcome::Done { fence: None }, Outcome::Gone, Outcome::Conflict] {
                    let _ = world.ledger.outcome(&planned.id, outcome, now);
                }
            }
        }
        world.second += 2;
    }
    assert_done(&world, "replayed");
}

#[test]
fn an_api_server_that_fails_is_asked_again_with_patience() {
    let mut world = troubled();
    let mut tries = 0;
    while world.second < 300 {
        let plan = world.plan();
        for planned in plan.effects {
            tries += 1;
            let now = world.now();
            let _ = world.ledger.outcome(&planned.id, Outcome::Failed("503".to_owned()), now);
        }
        world.second += 1;
    }
    assert!(world.writes.is_empty());
    assert!(tries < 200, "{tries}");
    world.pass(400);
    assert_done(&world, "after the outage of the API server");
}

#[test]
fn outcomes_that_never_come_are_not_waited_for_for_ever() {
    let mut world = troubled();
    while world.second < 100 {
        world.plan();
        world.second += 1;
    }
    world.pass(400);
    assert_done(&world, "lost outcomes");
}

#[test]
fn a_clock_that_jumps_an_hour_either_way_neither_hurries_nor_stops() {
    for jump in [-3600, 3600] {
        let mut world = World::new(runtime_with(|rules| rules.grace.never_pull = std::time::Duration::from_secs(120)));
        let job = world.job("j");
        world.put(pod("p", "nope:1", 0).of(&job).never());
        world.pass(30);
        world.wall_shift = jump;
        world.pass(60);
        assert!(world.acts().is_empty(), "{jump}: 90 s and a jump");
        world.pass(60);
        assert_eq!(world.acts().len(), 1, "{jump}");
        assert_eq!(world.only_record().record.class, Some(FailureClass::NeverPull));
    }
}

#[test]
fn after_a_restart_the_record_remembers_the_first_failure() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    world.pass(40);
    world.restart();
    world.pass(15);
    assert!(world.acts().is_empty());
    world.pass(10);
    assert_eq!(world.acts().len(), 1, "65 s after the first failure, 25 s after the restart");
}

#[test]
fn a_namespace_that_fails_as_a_whole_is_ended_slowly_and_said_so() {
    let mut world = World::new(rules());
    for index in 0..400 {
        world.put(pod(&format!("p{index}"), "nope:1", index).labelled("task", &format!("t{}", index % 4)).never());
    }
    world.pass(118);
    assert!(world.acts().len() <= 200);
    assert!(world.told().contains(&Reason::CapReached));
    world.pass(600);
    assert_eq!(world.pods.len(), 4);
}

#[test]
fn attempts_survive_restarts_and_are_counted_once() {
    let mut world = World::new(rules());
    let words = "registry.example/x:1";
    for round in 0..4 {
        world.put(pod(&format!("p{round}"), words, world.second).labelled("task", "t").network());
        world.pass(70);
        world.restart();
        world.pass(40);
        world.delete(&format!("uid-p{round}"));
        world.pass(2);
        world.restart();
    }
    world.put(pod("last", words, world.second).labelled("task", "t").network());
    world.pass(50);
    assert!(world.acts().is_empty());
    let record = &world.only_record().record;
    assert_eq!(record.attempts, 4);
}

#[test]
fn a_pod_that_is_gone_before_its_deletion_is_answered_for_is_counted_as_collected() {
    let mut world = troubled();
    world.pass(59);
    for _ in 0..600 {
        world.second += 1;
        loop {
            let plan = world.plan();
            if plan.effects.is_empty() {
                break;
            }
            for planned in plan.effects {
                let outcome = world.apply(&planned.effect);
                if matches!(planned.effect, Effect::DeletePod { .. }) {
                    // The watch was faster, and everything was planned anew in between.
                    let _ = world.plan();
                }
                let now = world.now();
                let _ = world.ledger.outcome(&planned.id, outcome, now);
            }
        }
    }
    assert_done(&world, "the watch is faster");
    let collected = world.records.values().map(|sight| sight.record.pods_collected).max();
    assert_eq!(collected, Some(4));
    assert_eq!(world.told().iter().filter(|reason| **reason == Reason::PodsCollected).count(), 1);
}

#[test]
fn a_job_that_was_recorded_but_never_failed_is_failed_by_a_later_leader_when_it_makes_pods_again() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    while world.records.values().all(|sight| sight.record.state != FailureState::PermanentlyFailed) {
        world.second += 1;
        for planned in world.plan().effects {
            world.carry_out(&planned);
        }
        assert!(world.second < 100);
    }
    // The leader dies there and then, and for twenty minutes there is none. Its pod is deleted meanwhile.
    assert!(world.jobs[&job.uid].condition.is_none());
    world.pods.clear();
    world.second += 1200;
    world.restart();
    world.pass(60);
    assert!(world.jobs[&job.uid].condition.is_none(), "what is so old is looked at only if it goes on");
    let now = world.now();
    let denial = DenialSight { namespace: NS.to_owned(), job: job.clone(), at: now };
    let _ = world.ledger.observe_denial(denial, now);
    world.pass(5);
    assert!(world.jobs[&job.uid].condition.is_some());
}

#[test]
fn a_clock_that_jumps_ahead_by_days_removes_no_record() {
    let mut world = troubled();
    world.pass(400);
    world.wall_shift = 3 * 24 * 3600;
    world.pass(3600);
    assert_done(&world, "three days ahead");
    // It is set right again: what it was meanwhile shortens no record's life, and lengthens none by more.
    world.wall_shift = 0;
    world.pass(22 * 3600);
    assert_eq!(world.records.len(), 3);
    world.pass(2 * 3600);
    assert!(world.records.is_empty());
}

#[test]
fn a_clock_that_is_set_back_does_not_make_old_pods_newer_than_their_failure() {
    let mut world = World::new(rules());
    for (name, image) in [("p", "nope:1"), ("q", "nope:2")] {
        world.put(pod(name, image, 0).labelled("task", "t").never());
    }
    world.wall_shift = -3600;
    let before = world.writes.len();
    world.pass(300);
    assert!(world.writes.len() - before <= 8, "{}", world.writes.len() - before);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
}
