//! Jobs whose pods our webhook refuses.

use std::time::Duration;

use crate::core::pod::OwnerRef;
use crate::core::policy::{Policy, RuntimeEnforcement, RuntimeRules};
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, FailureState};
use crate::core::runtime::sight::{DenialSight, PolicyMark, TemplateRuling};

use super::world::*;

fn limited() -> RuntimeRules {
    runtime_with(|rules| rules.fail_denied_after = Some(Duration::from_secs(300)))
}

fn ruling(reason: Reason, image: &str, generation: i64) -> TemplateRuling {
    TemplateRuling::Denied {
        reason,
        detail: None,
        image: image.to_owned(),
        message: format!("image {image} is on no node"),
        remedy: "load it".to_owned(),
        policies: vec![PolicyMark { name: "agents".to_owned(), uid: "uid-agents".to_owned(), generation }],
        pod: Box::new(pod("t", image, 0).never().facts),
    }
}

fn deny(world: &mut World, job: &OwnerRef) {
    let now = world.now();
    let denial = DenialSight { namespace: NS.to_owned(), job: job.clone(), at: now };
    let _ = world.ledger.observe_denial(denial, now);
}

fn denied_for(world: &mut World, job: &OwnerRef, seconds: i64) {
    for _ in 0..seconds / 30 {
        deny(world, job);
        world.pass(30);
    }
}

#[test]
fn a_job_denied_for_long_enough_under_one_policy_is_failed() {
    let mut world = World::new(limited());
    let job = world.job("j");
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
    denied_for(&mut world, &job, 270);
    assert!(world.acts().is_empty());
    denied_for(&mut world, &job, 90);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::PermanentlyFailed, Reason::DeniedTooLong));
    assert_eq!(world.jobs[&job.uid].condition.as_ref().map(|(reason, _)| *reason), Some(Reason::DeniedTooLong));
    assert!(world.writes.len() <= 6);
    let writes = world.writes.len();
    world.pass(3600);
    assert_eq!(world.writes.len(), writes);
}

#[test]
fn what_a_policy_could_mend_fails_no_job() {
    for reason in [Reason::ImageNotAllowed, Reason::ImagePresenceUnknown, Reason::TaskPermanentlyFailed] {
        let mut world = World::new(limited());
        let job = world.job("j");
        world.rulings.insert(job.uid.clone(), ruling(reason, "nope:1", 1));
        denied_for(&mut world, &job, 1200);
        assert!(world.writes.is_empty(), "{reason}");
    }
    let mut world = World::new(limited());
    let job = world.job("j");
    denied_for(&mut world, &job, 1200);
    assert!(world.writes.is_empty(), "what cannot be judged");
}

#[test]
fn a_new_generation_starts_the_time_anew_and_a_fresh_ruling_decides() {
    let mut world = World::new(limited());
    let job = world.job("j");
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
    denied_for(&mut world, &job, 240);
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 2));
    denied_for(&mut world, &job, 240);
    assert!(world.acts().is_empty());
    world.rulings.insert(job.uid.clone(), TemplateRuling::Allowed);
    denied_for(&mut world, &job, 1200);
    assert!(world.acts().is_empty());
}

#[test]
fn a_ruling_of_a_generation_that_is_no_longer_in_force_fails_nobody() {
    let short = runtime_with(|rules| rules.fail_denied_after = Some(Duration::from_secs(8)));
    let mut world = World::new(short.clone());
    let job = world.job("j");
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
    deny(&mut world, &job);
    world.pass(6);
    world.policies.apply(Policy { generation: 2, ..policy("agents", short) });
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 2));
    world.pass(6);
    assert!(world.acts().is_empty());
    world.pass(15);
    assert!(!world.acts().is_empty(), "but it is failed under the new one");
}

fn on_trial() -> RuntimeRules {
    RuntimeRules { enforcement: RuntimeEnforcement::Audit, ..limited() }
}

#[test]
fn a_policy_on_trial_tells_of_a_denied_job_once_and_looks_at_it_seldom() {
    let mut world = World::new(on_trial());
    let job = world.job("j");
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
    denied_for(&mut world, &job, 390);
    assert_eq!(world.told(), [Reason::DeniedTooLong]);
    let reads = world.reads;
    denied_for(&mut world, &job, 7200);
    assert!(world.reads - reads <= 13, "{} in two hours", world.reads - reads);
    assert_eq!(world.writes.len(), 1, "{:?}", world.told());
    world.pass(3600);
    assert_eq!(world.ledger.tasks_kept(), 0, "denied no more");
}

#[test]
fn what_was_ruled_on_trial_fails_nobody_once_the_policy_is_in_force() {
    for denied_still in [false, true] {
        let mut world = World::new(on_trial());
        let job = world.job("j");
        world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
        denied_for(&mut world, &job, 600);
        assert_eq!(world.told(), [Reason::DeniedTooLong]);
        world.policies.apply(Policy { generation: 2, ..policy("agents", limited()) });
        world.ledger.reconsider();
        let now = if denied_still { ruling(Reason::ImageAbsent, "nope:1", 2) } else { TemplateRuling::Allowed };
        world.rulings.insert(job.uid.clone(), now);
        denied_for(&mut world, &job, 270);
        assert!(world.acts().is_empty(), "it has its time anew");
        denied_for(&mut world, &job, 90);
        assert_eq!(failed_jobs(&world), usize::from(denied_still));
    }
}

#[test]
fn without_the_setting_nothing_is_even_read() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, "nope:1", 1));
    denied_for(&mut world, &job, 1200);
    assert_eq!((world.reads, world.writes.len()), (0, 0));
}

fn failed_jobs(world: &World) -> usize {
    world.acts().iter().filter(|act| matches!(act, Effect::FailJob { .. })).count()
}

#[test]
fn many_jobs_of_different_images_at_once_are_the_policys_doing_however_long_it_takes() {
    let mut world = World::new(limited());
    let jobs: Vec<_> = (0..6).map(|index| world.job(&format!("j{index}"))).collect();
    for (index, job) in jobs.iter().enumerate() {
        world.rulings.insert(job.uid.clone(), ruling(Reason::ImageAbsent, &format!("nope{index}:1"), 1));
    }
    let deny_for = |world: &mut World, jobs: &[OwnerRef], seconds: i64| {
        for _ in 0..seconds / 30 {
            jobs.iter().for_each(|job| deny(world, job));
            world.pass(30);
        }
    };
    deny_for(&mut world, &jobs, 3600);
    assert!(world.acts().is_empty());
    assert!(world.told().contains(&Reason::BrakeEngaged));
    assert!(!world.told().contains(&Reason::BrakeReleased));
    // The policy is mended for most of them: what is left fails for its own sake, after a time of its own.
    for job in &jobs[2..] {
        world.rulings.insert(job.uid.clone(), TemplateRuling::Allowed);
    }
    deny_for(&mut world, &jobs[..2], 330);
    assert!(world.acts().is_empty());
    deny_for(&mut world, &jobs[..2], 480);
    assert!(world.told().contains(&Reason::BrakeReleased));
    assert_eq!(failed_jobs(&world), 2);
}
