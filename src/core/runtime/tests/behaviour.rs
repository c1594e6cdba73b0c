//! What is done, task by task, each as a sentence.

use crate::core::cause::FailureClass;
use crate::core::policy::{FailOwner, RuntimeEnforcement};
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, EventAction, FailureState};
use crate::core::runtime::guard::Guard;
use crate::core::runtime::sight::{EventSight, Phase};

use super::world::*;

#[test]
fn a_job_with_a_missing_image_is_recorded_marked_failed_and_told_in_that_order() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    world.pass(59);
    assert!(world.acts().is_empty());
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::Retrying, Reason::PullRetrying));
    world.pass(2);
    let kinds: Vec<&str> = world
        .writes
        .iter()
        .map(|effect| match effect {
            Effect::WriteRecord { record, .. } => record.state.as_str(),
            Effect::MarkOwner { .. } => "mark",
            Effect::FailJob { .. } => "fail",
            Effect::EmitEvent(event) => event.reason.as_str(),
            _ => "else",
        })
        .collect();
    let expected = ["Retrying", "PullRetrying", "PermanentlyFailed", "mark", "fail", "PullPermanentlyFailed"];
    assert_eq!(kinds, expected);
    let record = &world.only_record().record;
    assert_eq!(record.class, Some(FailureClass::NeverPull));
    assert_eq!(record.attempts, 1);
    assert_eq!(record.failures.len(), 1);
    assert!(record.failed_at.is_some() && record.expires_at.is_some());
    let (reason, message) = world.jobs[&job.uid].condition.clone().expect("failed");
    assert_eq!(reason, Reason::PullPermanentlyFailed);
    assert!(message.contains("nope:1") && message.contains("NeverPull"), "{message}");
    assert!(world.pods.is_empty());
    let before = world.writes.len();
    world.pass(3600);
    assert_eq!(world.writes.len(), before, "nothing more is written");
}

#[test]
fn a_healthy_pod_leaves_no_state_and_asks_for_no_plan() {
    let mut world = World::new(rules());
    for index in 0..100 {
        world.put(pod(&format!("p{index}"), "fine:1", 0));
        world.change(&format!("p{index}"), |pod| pod.runs(1));
    }
    world.settle();
    assert_eq!((world.ledger.pods_kept(), world.ledger.tasks_kept()), (0, 0));
    assert_eq!(world.last.recheck_after, None);
    assert!(world.writes.is_empty());
}

#[test]
fn a_pod_that_heals_within_its_grace_is_forgotten_and_its_record_resolved() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "late:1", 0).of(&job).not_found());
    world.pass(45);
    assert_eq!(world.only_record().record.state, FailureState::Retrying);
    world.change("p", |pod| pod.runs(46));
    world.pass(5);
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
    assert_eq!(world.ledger.pods_kept(), 0);
    assert!(world.told().contains(&Reason::PullResolved));
    assert!(world.acts().is_empty());
    world.pass(25 * 3600);
    assert!(world.records.is_empty(), "removed a day after its end");
    assert_eq!(world.ledger.tasks_kept(), 0);
}

#[test]
fn not_found_needs_a_second_failed_pull_half_the_grace_after_the_first() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "gone:1", 0).of(&job).not_found());
    world.settle();
    let words = not_found_words("gone:1");
    world.change("p", |pod| pod.backs_off(&words));
    world.pass(61);
    assert!(world.acts().is_empty(), "one pull only");
    world.change("p", |pod| pod.not_found());
    world.settle();
    assert_eq!(world.acts().len(), 1);
}

#[test]
fn not_found_is_concluded_without_seeing_the_second_pull_once_the_kubelet_must_have_tried() {
    let mut world = World::new(rules());
    let job = world.job("import");
    let words = not_found_words("gone:1");
    world.put(pod("p", "gone:1", 0).of(&job).backs_off(&words));
    world.pass(200);
    assert_eq!(world.acts().len(), 1);
}

#[test]
fn flapping_between_pull_and_back_off_resets_nothing_and_a_bare_back_off_keeps_its_cause() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "gone:1", 0).of(&job));
    for step in 0..7 {
        world.change("p", |pod| {
            if step % 2 == 0 {
                pod.not_found()
            } else {
                pod.waits("ImagePullBackOff", "Back-off pulling image \"gone:1\"")
            }
        });
        world.pass(8);
    }
    world.change("p", |pod| pod.waits("ImagePullBackOff", "Back-off pulling image \"gone:1\""));
    assert!(world.acts().is_empty());
    world.pass(8);
    assert_eq!(world.acts().len(), 1);
    assert_eq!(world.only_record().record.class, Some(FailureClass::NotFound));
}

#[test]
fn a_maker_that_deletes_and_creates_again_does_not_reset_the_clock() {
    let mut world = World::new(rules());
    for round in 0..4 {
        let name = format!("p{round}");
        world.put(pod(&name, "nope:1", world.second).labelled("task", "t1").never());
        world.pass(20);
        if round < 3 {
            world.delete(&format!("uid-{name}"));
        }
    }
    let record = &world.only_record().record;
    assert_eq!(record.state, FailureState::PermanentlyFailed);
    assert_eq!(record.task.label.as_deref(), Some("task"));
    assert_eq!(record.task.name, "t1");
}

#[test]
fn a_container_of_the_image_that_starts_resets_the_clock() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "some:1", 0).of(&job).not_found());
    world.pass(50);
    world.put(pod("q", "some:1", 50).of(&job).runs(51));
    world.change("p", |pod| pod.not_found());
    world.pass(40);
    world.change("p", |pod| pod.waits("ImagePullBackOff", "Back-off pulling image \"some:1\""));
    world.change("p", |pod| pod.not_found());
    world.pass(15);
    assert!(world.acts().is_empty());
}

#[test]
fn transient_causes_end_only_by_the_retry_cap() {
    let mut world = World::new(rules());
    for round in 0..5 {
        let name = format!("p{round}");
        world.put(pod(&name, "registry.example/x:1", world.second).labelled("task", "t1").network());
        world.pass(700);
        if round < 4 {
            assert!(world.acts().is_empty(), "round {round}");
            world.delete(&format!("uid-{name}"));
            world.pass(5);
        }
    }
    let record = &world.only_record().record;
    assert_eq!(record.reason, Reason::PullRetriesExhausted);
    assert_eq!(record.attempts, 5);
    assert!(world.told().contains(&Reason::PullRetriesExhausted));
}

#[test]
fn one_pod_that_waits_for_ever_is_one_attempt() {
    let mut world = World::new(rules());
    let job = world.job("import");
    world.put(pod("p", "registry.example/x:1", 0).of(&job).network());
    world.pass(20_000);
    assert!(world.acts().is_empty());
    assert_eq!(world.only_record().record.attempts, 1);
    assert!(world.writes.len() < 6, "{:?}", world.writes.len());
}

#[test]
fn an_evicted_pod_was_not_given_up() {
    let mut world = World::new(runtime_with(|rules| rules.max_attempts = 1));
    world.put(pod("p", "registry.example/x:1", 0).labelled("task", "t").network());
    world.settle();
    world.change("p", |mut pod| {
        pod.disrupted = true;
        pod.deleting = true;
        pod
    });
    world.delete("uid-p");
    world.pass(300);
    assert!(world.records.is_empty());
}

#[test]
fn the_dead_pods_of_the_incident_are_collected_down_to_the_newest() {
    let mut world = World::new(rules());
    for index in 0..55 {
        world.put(pod(&format!("p{index:02}"), "optio-node:latest", index).labelled("task", "t1").never());
    }
    world.pass(300);
    assert_eq!(world.deletes(), 54);
    assert_eq!(world.pods.len(), 1);
    let kept = world.pods.values().next().expect("one");
    assert_eq!(kept.facts.name, "p54", "the newest");
    assert_eq!(kept.phase, Phase::Failed);
    assert_eq!(kept.facts.labels.get("pullguard.dev/state").map(String::as_str), Some("permanently-failed"));
    let record = &world.only_record().record;
    assert_eq!(record.pods_collected, 54);
    assert_eq!(record.attempts, 55);
    let others = world.writes.len() - world.deletes();
    assert!(others <= 6, "{others} writes: {:?}", world.told());
    assert_eq!(world.told().iter().filter(|reason| **reason == Reason::PodsCollected).count(), 1);
}

#[test]
fn a_kept_pod_whose_kubelet_is_dead_is_deleted_after_a_minute() {
    let mut world = World::new(rules());
    world.dead_kubelets = true;
    world.put(pod("p", "nope:1", 0).labelled("task", "t1").never());
    world.pass(65);
    assert_eq!(world.pods.len(), 1);
    world.pass(70);
    assert!(world.pods.is_empty());
}

#[test]
fn a_single_bare_pod_is_a_task_of_its_own() {
    let mut world = World::new(rules());
    world.node("n2", &["docker.io/library/nope:1"]);
    world.put(pod("p", "nope:1", 0).never());
    world.pass(120);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.task.kind.as_str()), (FailureState::PermanentlyFailed, "Pod"));
    assert_eq!(world.pods["uid-p"].phase, Phase::Failed);
    assert_eq!(world.deletes(), 0, "kept as evidence");
}

#[test]
fn what_once_ran_is_never_touched() {
    let mut world = World::new(rules());
    let running = pod("p", "lost:1", 0).labelled("task", "t1").runs(1);
    world.put(running);
    world.pass(10);
    world.change("p", |pod| {
        let mut pod = pod.never();
        pod.phase = Phase::Running;
        pod
    });
    world.pass(600);
    assert!(world.acts().is_empty());
    assert_eq!(world.pods["uid-p"].phase, Phase::Running);
    assert!(!world.records.is_empty(), "but it is told");
}

#[test]
fn a_job_of_which_pods_run_loses_only_the_stuck_one() {
    let mut world = World::new(rules());
    let job = world.job("ten");
    for index in 0..9 {
        world.put(pod(&format!("ok{index}"), "app:1", 0).of(&job).runs(1));
    }
    world.put(pod("stuck", "app:1", 20).of(&job).never());
    world.pass(300);
    assert!(world.jobs[&job.uid].condition.is_none());
    assert_eq!(world.pods["uid-stuck"].phase, Phase::Failed);
    assert_eq!(world.pods.values().filter(|pod| pod.phase == Phase::Running).count(), 9);
    let record = &world.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::Retrying, Reason::PodFailed));
    assert!(!world.jobs[&job.uid].facts.marked);
    assert_eq!(world.told().iter().filter(|reason| **reason == Reason::PodFailed).count(), 1);
}

#[test]
fn jobs_of_others_suspended_and_finished_ones_are_left_alone() {
    for (index, change) in [
        (|job: &mut crate::core::runtime::sight::JobFacts| job.managed_by = Some("kueue".to_owned())) as fn(&mut _),
        |job| job.suspended = true,
        |job| job.finished = true,
        |job| job.success_criteria_met = true,
        |job| job.started = false,
    ]
    .into_iter()
    .enumerate()
    {
        let mut world = World::new(rules());
        let job = world.job("j");
        change(world.job_mut(&job));
        world.put(pod("p", "nope:1", 0).of(&job).never());
        world.pass(300);
        assert!(world.acts().is_empty(), "case {index}");
        assert!(!world.jobs[&job.uid].facts.marked, "case {index}");
        assert!(world.refused_by(&job).is_err());
    }
}

#[test]
fn a_suspended_job_is_failed_when_it_is_resumed() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.job_mut(&job).suspended = true;
    world.put(pod("p", "nope:1", 0).of(&job).never());
    world.pass(200);
    assert!(world.acts().is_empty());
    world.job_mut(&job).suspended = false;
    world.pass(60);
    assert!(world.jobs[&job.uid].condition.is_some());
}

#[test]
fn a_pod_that_starts_between_decision_and_effect_keeps_its_job() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("a", "nope:1", 0).of(&job).never());
    world.put(pod("b", "nope:1", 0).of(&job).never());
    world.pass(59);
    world.second += 2;
    loop {
        let plan = world.plan();
        if plan.effects.is_empty() {
            break;
        }
        for planned in plan.effects {
            if matches!(planned.effect, Effect::FailJob { .. }) {
                // Only the API server knows.
                let running = world.pods["uid-b"].clone().runs(61);
                world.pods.insert("uid-b".to_owned(), running);
                assert_eq!(
                    world.apply(&planned.effect),
                    crate::core::runtime::effect::Outcome::Refused(Guard::PodStarted)
                );
                let now = world.now();
                let outcome = crate::core::runtime::effect::Outcome::Refused(Guard::PodStarted);
                let _ = world.ledger.outcome(&planned.id, outcome, now);
            } else {
                world.carry_out(&planned);
            }
        }
    }
    world.pass(30);
    assert!(world.jobs[&job.uid].condition.is_none());
    assert_eq!(world.pods["uid-b"].phase, Phase::Running);
    assert_eq!(world.only_record().record.state, FailureState::Retrying);
    assert!(!world.jobs[&job.uid].facts.marked, "nor the marks of a failed one");
}

#[test]
fn service_controllers_get_a_record_and_events_only() {
    for kind in ["ReplicaSet", "StatefulSet", "DaemonSet"] {
        let mut world = World::new(rules());
        let owner = owner("apps/v1", kind, "web");
        world.put(pod("p", "nope:1", 0).of(&owner).never());
        world.pass(300);
        assert!(world.acts().is_empty());
        assert!(world.writes.iter().all(|effect| matches!(effect, Effect::WriteRecord { .. } | Effect::EmitEvent(_))));
        assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
        assert_eq!(world.told(), [Reason::PullRetrying, Reason::PullPermanentlyFailed], "{kind}");
    }
}

#[test]
fn a_listed_kind_is_marked_and_its_stuck_pods_are_collected() {
    let mut world = World::new(runtime_with(|rules| rules.task_kinds = vec![listed("tekton.dev", "TaskRun")]));
    let run = owner("tekton.dev/v1", "TaskRun", "build");
    world.others.insert(
        run.uid.clone(),
        crate::core::runtime::sight::OwnerFacts {
            namespace: NS.to_owned(),
            owner: run.clone(),
            resource_version: "1".to_owned(),
            deleting: false,
            controller: None,
            marked: false,
            job: None,
        },
    );
    world.put(pod("a", "nope:1", 0).of(&run).never());
    world.put(pod("b", "nope:1", 0).of(&run).never());
    world.pass(300);
    assert!(world.others[&run.uid].marked);
    assert_eq!(world.deletes(), 2);
    let others = world.writes.len() - world.deletes();
    assert!(others <= 6, "{others}");
}

#[test]
fn fail_owner_none_only_tells_and_pod_fails_pods_only() {
    let mut none = World::new(fail_owner(FailOwner::None));
    let job = none.job("j");
    none.put(pod("p", "nope:1", 0).of(&job).never());
    none.put(pod("q", "nope:1", 0).labelled("task", "t").never());
    none.pass(300);
    assert!(none.acts().is_empty());
    assert!(none.records.values().all(|sight| sight.record.state == FailureState::PermanentlyFailed));
    let mut pods = World::new(fail_owner(FailOwner::Pod));
    let job = pods.job("j");
    pods.put(pod("p", "nope:1", 0).of(&job).never());
    pods.pass(300);
    assert!(pods.jobs[&job.uid].condition.is_none());
    assert_eq!(pods.pods["uid-p"].phase, Phase::Failed);
    let record = &pods.only_record().record;
    assert_eq!((record.state, record.reason), (FailureState::PermanentlyFailed, Reason::PodFailed));
}

#[test]
fn audit_tells_the_same_and_writes_nothing_else() {
    let audit = runtime_with(|rules| rules.enforcement = RuntimeEnforcement::Audit);
    let mut world = World::new(audit);
    let job = world.job("j");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    world.put(pod("a", "nope:1", 0).labelled("task", "t").never());
    world.put(pod("b", "nope:1", 1).labelled("task", "t").never());
    world.pass(300);
    assert!(world.writes.iter().all(|effect| matches!(effect, Effect::EmitEvent(_))));
    assert!(world.events.iter().all(|event| event.note.starts_with("(audit) ")));
    let actions: Vec<_> = world.events.iter().map(|event| (event.reason, event.action)).collect();
    assert!(actions.contains(&(Reason::PullPermanentlyFailed, EventAction::WouldFailOwner)));
    assert!(actions.contains(&(Reason::PullPermanentlyFailed, EventAction::WouldFailPod)));
    assert!(actions.contains(&(Reason::PodsCollected, EventAction::WouldCollectPods)));
    let before = world.events.len();
    world.pass(3600);
    assert_eq!(world.events.len(), before, "once");
}

#[test]
fn of_several_policies_the_most_cautious_holds() {
    let patient = runtime_with(|rules| {
        rules.grace.never_pull = std::time::Duration::from_secs(500);
        rules.keep_pods = 3;
    });
    let mut world = World::new(rules()).with_policy(policy("patient", patient));
    for index in 0..5 {
        world.put(pod(&format!("p{index}"), "nope:1", index).labelled("task", "t").never());
    }
    world.pass(400);
    assert!(world.acts().is_empty());
    world.pass(300);
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.only_record().record.policies, ["agents", "patient"]);
}

#[test]
fn a_pod_that_no_policy_matches_is_nobodys_business() {
    let mut world = World::new(rules());
    world.policies.remove("agents");
    world.put(pod("p", "nope:1", 0).never());
    world.pass(600);
    assert!(world.writes.is_empty());
    assert_eq!(world.last.stuck_pods, 1, "but it is counted");
    world.delete("uid-p");
    world.settle();
    assert_eq!(world.ledger.pods_kept(), 0);
}

#[test]
fn mirror_pods_and_system_namespaces_are_never_looked_at() {
    let mut world = World::new(rules());
    let mut mirror = pod("m", "nope:1", 0).never();
    mirror.mirror = true;
    world.put(mirror);
    for namespace in ["kube-system", "pullguard"] {
        let mut system = pod(namespace, "nope:1", 0).never();
        system.facts.namespace = namespace.to_owned();
        world.put(system);
    }
    world.pass(300);
    assert_eq!(world.ledger.pods_kept(), 0);
    assert!(world.writes.is_empty());
}

#[test]
fn an_event_supplies_a_cause_but_never_convicts_alone() {
    let mut world = World::new(rules());
    let job = world.job("j");
    let bare =
        |pod: crate::core::runtime::sight::PodSight| pod.waits("ImagePullBackOff", "Back-off pulling image \"gone:1\"");
    world.put(bare(pod("p", "gone:1", 0).of(&job)));
    for _ in 0..10 {
        let event = EventSight {
            namespace: NS.to_owned(),
            pod: "p".to_owned(),
            pod_uid: "uid-p".to_owned(),
            reason: "Failed".to_owned(),
            message: format!("Failed to pull image \"gone:1\": {}", not_found_words("gone:1")),
            container: Some("main".to_owned()),
            at: world.now(),
        };
        let now = world.now();
        let _ = world.ledger.observe_event(event, now);
        world.pass(30);
    }
    assert!(world.acts().is_empty());
    assert_eq!(world.only_record().record.class, Some(FailureClass::NotFound), "but it is told");
    world.change("p", |pod| pod.not_found());
    world.pass(40);
    assert!(world.acts().is_empty());
    world.change("p", bare);
    world.change("p", |pod| pod.not_found());
    world.pass(5);
    assert_eq!(world.acts().len(), 1);
}

#[test]
fn not_found_or_denied_is_not_concluded_while_others_start_from_that_repository() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "team/app:2", 0).of(&job).denied());
    world.pass(30);
    let mut other = pod("other", "team/app:1", 30).runs(31);
    other.facts.namespace = "elsewhere".to_owned();
    world.put(other);
    world.pass(300);
    assert!(world.acts().is_empty());
    let mut alone = World::new(rules());
    let job = alone.job("j");
    alone.put(pod("p", "team/app:2", 0).of(&job).denied());
    alone.pass(100);
    assert_eq!(alone.acts().len(), 1);
}

#[test]
fn runs_of_a_cronjob_that_fail_for_one_cause_are_told_once() {
    let mut world = World::new(rules());
    let cron = owner("batch/v1", "CronJob", "nightly");
    for run in 0..4 {
        let before = world.writes.len();
        let job = world.job(&format!("nightly-{run}"));
        world.jobs.get_mut(&job.uid).expect("the Job").facts.controller = Some(cron.clone());
        world.put(pod(&format!("p{run}"), "nope:1", world.second).of(&job).never());
        world.pass(100);
        assert!(world.writes.len() - before <= 6, "run {run}: {:?}", world.told());
        if run == 2 {
            world.restart();
        }
    }
    let told: Vec<_> = world.events.iter().filter(|event| event.reason == Reason::RunsKeepFailing).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].regarding.kind, "CronJob");
    let retrying = world.told().iter().filter(|reason| **reason == Reason::PullRetrying).count();
    assert_eq!(retrying, 1, "of the others the story tells");
    assert!(world.records.values().all(|sight| sight.record.maker.as_deref() == Some("CronJob/nightly")));
}

#[test]
fn what_it_costs_is_counted() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "nope:1", 0).of(&job).never());
    let mut waited = std::time::Duration::ZERO;
    for _ in 0..70 {
        world.second += 1;
        let plan = world.plan();
        waited += plan.counters.waiting.values().sum::<std::time::Duration>();
        for planned in plan.effects {
            world.carry_out(&planned);
        }
    }
    assert!(waited >= std::time::Duration::from_secs(60), "{waited:?}");
}

#[test]
fn when_the_attempts_are_used_up_a_pod_that_has_just_begun_still_gets_its_grace() {
    let mut world = World::new(rules());
    for round in 0..5 {
        let name = format!("p{round}");
        world.put(pod(&name, "registry.example/x:1", world.second).labelled("task", "t").network());
        world.pass(12);
        world.delete(&format!("uid-{name}"));
    }
    world.put(pod("last", "registry.example/x:1", world.second).labelled("task", "t").network());
    world.pass(30);
    assert_eq!(world.only_record().record.reason, Reason::PullRetriesExhausted);
    assert!(world.acts().is_empty(), "it may start yet");
    world.pass(60);
    assert_eq!(world.pods["uid-last"].phase, Phase::Failed);
}

#[test]
fn a_start_gives_the_next_failure_all_its_attempts_under_audit_too() {
    for enforcement in [RuntimeEnforcement::Audit, RuntimeEnforcement::Enforce] {
        let mut world = World::new(runtime_with(|rules| {
            rules.enforcement = enforcement;
            rules.max_attempts = 3;
        }));
        for round in 0..6 {
            let name = format!("p{round}");
            world.put(pod(&name, "registry.example/x:1", world.second).labelled("task", "t").network());
            world.pass(20);
            if round == 2 {
                let now = world.second;
                world.change(&name, |pod| pod.runs(now));
            }
            world.pass(10);
            world.delete(&format!("uid-{name}"));
            world.pass(1);
            let exhausted = world.told().contains(&Reason::PullRetriesExhausted);
            assert_eq!(exhausted, round == 5, "{enforcement:?}, round {round}");
        }
    }
}

#[test]
fn a_marked_job_whose_image_comes_before_it_is_failed_loses_its_marks() {
    let mut world = World::new(rules());
    let job = world.job("j");
    world.put(pod("p", "gone:1", 0).of(&job).not_found());
    world.pass(40);
    world.change("p", |pod| pod.waits("ImagePullBackOff", "Back-off pulling image \"gone:1\""));
    world.change("p", |pod| pod.not_found());
    // The registry has it at last: the pod starts between the mark and what follows it.
    while !world.jobs[&job.uid].facts.marked {
        let effects = world.plan().effects;
        if effects.is_empty() {
            world.second += 1;
        }
        effects.iter().for_each(|planned| world.carry_out(planned));
        assert!(world.second < 200);
    }
    let now = world.second + 1;
    world.second += 2;
    world.change("p", |pod| pod.runs(now));
    world.pass(10);
    assert!(world.jobs[&job.uid].condition.is_none());
    assert_eq!(world.only_record().record.state, FailureState::Resolved);
    assert!(!world.jobs[&job.uid].facts.marked && world.jobs[&job.uid].annotations.is_empty());
}

#[test]
fn a_policy_that_was_turned_to_audit_removes_no_record() {
    let mut world = World::new(rules());
    world.put(pod("p", "nope:1", 0).labelled("task", "t").never());
    world.pass(100);
    assert_eq!(world.only_record().record.state, FailureState::PermanentlyFailed);
    let audit = runtime_with(|rules| rules.enforcement = RuntimeEnforcement::Audit);
    world.policies.apply(policy("agents", audit));
    let writes = world.writes.len();
    world.pass(25 * 3600);
    assert_eq!((world.records.len(), world.writes.len()), (1, writes));
    world.policies.apply(policy("agents", rules()));
    world.pass(60);
    assert!(world.records.is_empty(), "it was due for long");
}
