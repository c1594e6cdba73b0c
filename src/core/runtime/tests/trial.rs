//! A policy on trial, and then in force.

use crate::core::policy::RuntimeEnforcement;
use crate::core::runtime::effect::EventAction;
use crate::core::runtime::sight::Phase;

use super::world::*;

#[test]
fn what_is_done_is_told_though_it_was_told_that_it_would_be() {
    let mut world = World::new(runtime_with(|rules| rules.enforcement = RuntimeEnforcement::Audit));
    world.node("n2", &["docker.io/library/here:1"]);
    let (job, beside) = (world.job("j"), world.job("beside"));
    world.put(pod("p", "nope:1", 0).of(&job).never());
    world.put(pod("a", "nope:1", 0).labelled("task", "t").never());
    world.put(pod("q", "here:1", 0).of(&beside).never());
    world.pass(300);
    let told = |world: &World| -> Vec<EventAction> {
        let earnest = world.events.iter().filter(|event| !event.note.starts_with("(audit) "));
        earnest.map(|event| event.action).filter(|action| *action != EventAction::Report).collect()
    };
    assert_eq!((world.acts().len(), told(&world).len()), (0, 0));
    world.policies.apply(policy("agents", rules()));
    world.ledger.reconsider();
    world.pass(300);
    assert!(world.jobs[&job.uid].condition.is_some());
    assert_eq!((world.pods["uid-a"].phase, world.pods["uid-q"].phase), (Phase::Failed, Phase::Failed));
    let mut told = told(&world);
    told.sort();
    assert_eq!(told, [EventAction::FailOwner, EventAction::FailPod, EventAction::FailPod]);
}
