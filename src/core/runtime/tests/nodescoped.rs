//! What is true for one node is not true for all.

use std::time::Duration;

use crate::core::cause::FailureClass;
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, EventDraft, FailureState};
use crate::core::runtime::sight::Phase;
use crate::core::selector::{Operator, Requirement, Selector};

use super::world::*;

#[test]
fn an_image_that_another_node_holds_costs_only_the_stuck_pod() {
    let mut world = World::new(rules());
    world.node("n2", &["docker.io/library/app:1"]);
    let job = world.job("j");
    world.put(pod("p", "app:1", 0).of(&job).never());
    world.pass(120);
    assert!(world.jobs[&job.uid].condition.is_none());
    assert_eq!(world.pods["uid-p"].phase, Phase::Failed);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason, record.attempts), (FailureState::Retrying, Reason::PodFailed, 1));
    assert_eq!(world.told().iter().filter(|reason| **reason == Reason::PodFailed).count(), 1);
}

#[test]
fn pods_that_wait_for_different_images_are_failed_each_for_its_own() {
    let mut world = World::new(rules());
    world.node("n2", &["docker.io/library/app:1", "docker.io/library/app:2"]);
    let job = world.job("j");
    for image in [1, 2] {
        world.put(pod(&format!("p{image}"), &format!("app:{image}"), 0).of(&job).never());
        world.put(pod(&format!("q{image}"), &format!("app:{image}"), 0).labelled("task", "t").never());
    }
    world.pass(62);
    for uid in ["uid-p1", "uid-p2", "uid-q1", "uid-q2"] {
        assert_eq!(world.pods[uid].phase, Phase::Failed, "{uid}");
    }
    for image in [1, 2] {
        let about = |name: String| {
            let regards = |event: &&EventDraft| event.reason == Reason::PodFailed && event.regarding.name == name;
            world.events.iter().find(regards).map(|event| event.note.clone()).unwrap_or_default()
        };
        for name in [format!("p{image}"), format!("q{image}")] {
            assert!(about(name.clone()).contains(&format!("app:{image}")), "{name}: {:?}", world.events);
        }
    }
}

#[test]
fn each_pod_that_is_failed_so_is_an_attempt_until_there_are_too_many() {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 3));
    world.node("n2", &["docker.io/library/app:1"]);
    let job = world.job("j");
    for round in 0..3 {
        world.put(pod(&format!("p{round}"), "app:1", world.second).of(&job).never());
        world.pass(100);
    }
    let record = &world.only_record().record;
    assert_eq!((record.reason, record.attempts), (Reason::PullRetriesExhausted, 3));
    assert!(world.jobs[&job.uid].condition.is_some());
}

#[test]
fn a_node_of_which_nothing_is_proven_keeps_the_task_alive() {
    let mut world = World::new(rules());
    let mut unready = node("n2", &[]);
    unready.readiness = crate::core::node::Readiness::NotReady;
    world.inventory.apply(unready, at(-1000));
    let job = world.job("j");
    world.put(pod("p", "app:1", 0).of(&job).never());
    world.pass(120);
    assert!(world.jobs[&job.uid].condition.is_none());
}

#[test]
fn with_an_elastic_policy_absence_is_never_proven_for_all() {
    let mut elastic = policy("agents", rules());
    elastic.presence.elastic = true;
    let mut world = World::new(rules()).with_policy(elastic);
    let job = world.job("j");
    world.put(pod("p", "app:1", 0).of(&job).never());
    world.pass(120);
    assert!(world.jobs[&job.uid].condition.is_none());
    assert_eq!(world.pods["uid-p"].phase, Phase::Failed);
}

#[test]
fn an_image_that_the_node_has_just_listed_stops_everything() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "app:1", 0).of(&job).never());
    world.pass(55);
    world.node("n1", &["docker.io/library/app:1"]);
    world.pass(20);
    assert!(world.acts().is_empty());
    world.change("p", |pod| pod.runs(76));
    world.pass(60);
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
}

#[test]
fn a_kubelet_that_still_refuses_what_its_node_lists_hides_it_for_want_of_a_secret() {
    let patient = runtime_with(|rules| rules.grace.unauthorized = Duration::from_secs(300));
    let mut world = World::new(patient);
    world.node("n1", &["docker.io/library/app:1"]);
    let job = world.job("j");
    world.put(pod("p", "app:1", 0).of(&job).never());
    world.pass(280);
    assert!(world.acts().is_empty(), "not by the grace of NeverPull");
    assert_eq!(world.only_record().record.class, Some(FailureClass::NeverPullNoAccess));
    world.pass(60);
    assert_eq!(world.acts().len(), 1);
    let record = &world.only_record().record;
    assert_eq!(record.class, Some(FailureClass::NeverPullNoAccess));
    assert!(record.remedy.contains("imagePullSecret"), "{}", record.remedy);
}

#[test]
fn a_platform_that_all_nodes_share_is_a_permanent_mismatch_and_else_is_not() {
    let words =
        "failed to pull and unpack image \"docker.io/library/app:1\": no match for platform in manifest: not found";
    for (arch, failed) in [("amd64", true), ("arm64", false)] {
        let mut world = World::new(rules());
        let mut other = node("n2", &[]);
        other.labels.insert("kubernetes.io/arch".to_owned(), arch.to_owned());
        world.inventory.apply(other, at(-1000));
        let job = world.job("j");
        world.put(pod("p", "app:1", 0).of(&job).waits("ErrImagePull", words));
        world.pass(120);
        assert_eq!(world.jobs[&job.uid].condition.is_some(), failed, "{arch}");
        assert!(!world.acts().is_empty());
    }
}

#[test]
fn a_registry_in_an_outage_ends_nothing_and_its_end_starts_the_clocks_anew() {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 1));
    let jobs: Vec<_> = (0..6).map(|index| world.job(&format!("j{index}"))).collect();
    for (index, job) in jobs.iter().enumerate() {
        let image = format!("registry.example/app{index}:1");
        world.put(pod(&format!("p{index}"), &image, 0).of(job).network());
    }
    world.pass(600);
    assert!(world.acts().is_empty());
    assert_eq!(world.told().iter().filter(|reason| **reason == Reason::BrakeEngaged).count(), 2, "registry and node");
    assert_eq!(world.last.brakes.len(), 2);
    // It comes back, and says that one of the images is not there.
    for index in 1..6 {
        world.change(&format!("p{index}"), |pod| {
            let pod = pod.with_policy(crate::core::pod::PullPolicy::Always);
            pod.runs(601)
        });
    }
    world.change("p0", |pod| pod.not_found());
    world.settle();
    assert!(world.told().contains(&Reason::BrakeReleased));
    world.pass(50);
    assert!(world.acts().is_empty(), "the grace begins anew");
    let words = not_found_words("registry.example/app0:1");
    world.change("p0", |pod| pod.backs_off(&words));
    world.change("p0", |pod| pod.not_found());
    world.pass(40);
    assert_eq!(world.acts().iter().filter(|act| matches!(act, Effect::FailJob { .. })).count(), 1);
}

#[test]
fn ten_pods_of_one_bad_image_are_no_outage() {
    let mut world = World::new(rules());
    for name in ["n2", "n3", "n4"] {
        world.node(name, &[]);
    }
    let job = world.job("j");
    for index in 0..10 {
        let on = format!("n{}", index % 4 + 1);
        world.put(pod(&format!("p{index}"), "gone:1", 0).of(&job).on(&on).not_found());
    }
    world.pass(200);
    assert!(world.jobs[&job.uid].condition.is_some());
}

#[test]
fn an_image_on_a_node_that_the_policy_does_not_select_costs_only_the_stuck_pod() {
    let on_n1 = Requirement {
        key: "kubernetes.io/hostname".to_owned(),
        operator: Operator::In(["n1".to_owned()].into_iter().collect()),
    };
    for (image, failed) in [("docker.io/library/app:1", false), ("docker.io/library/app:2", true)] {
        let mut selective = policy("agents", rules());
        selective.nodes = Selector::new(vec![on_n1.clone()]);
        let mut world = World::new(rules()).with_policy(selective);
        world.node("n2", &[image]);
        let job = world.job("j");
        world.put(pod("p", "app:1", 0).of(&job).never());
        world.pass(120);
        assert_eq!(world.jobs[&job.uid].condition.is_some(), failed, "{image}");
        assert_eq!(world.acts().len(), 1, "{image}");
    }
}
