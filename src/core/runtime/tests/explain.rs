//! One look at a pod, in words.

use super::super::super::cause::{FailureClass, Permanence};
use super::super::super::inventory::Inventory;
use super::super::super::pod::PullPolicy;
use super::super::explain::{Explanation, Look, explain, record_of};
use super::super::sight::{EventSight, PodSight};
use super::world::{NS, at, pod};

fn look(pod: &PodSight, events: &[EventSight]) -> Explanation {
    let nodes = Inventory::default();
    explain(&Look { pod, events, policies: &[], record: None, nodes: &nodes, now: at(100) })
}

fn event(reason: &str, message: &str) -> EventSight {
    EventSight {
        namespace: NS.to_owned(),
        pod: "a".to_owned(),
        pod_uid: "uid-a".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        container: None,
        at: at(90),
    }
}

#[test]
fn a_never_pull_is_permanent_and_says_where_it_was_read() {
    let message = "Container image \"agent:1\" is not present with pull policy of Never";
    let told = look(&pod("a", "agent:1", 0).with_policy(PullPolicy::Never).waits("ErrImageNeverPull", message), &[]);
    assert_eq!((told.class, told.permanence), (Some(FailureClass::NeverPull), Some(Permanence::Permanent)));
    assert!(
        told.evidence
            .iter()
            .any(|evidence| evidence.from == "pod status" && evidence.says.contains("ErrImageNeverPull"))
    );
    assert!(
        told.evidence.iter().any(|evidence| evidence.from == "node n1" && evidence.says == "does not list the image")
    );
    assert_eq!(told.next, ["no policy matches this pod: Pullguard does nothing about it"]);
}

#[test]
fn an_event_tells_the_cause_that_an_old_kubelet_leaves_out_but_convicts_nobody() {
    let stuck = pod("a", "agent:1", 0).waits("ImagePullBackOff", "Back-off pulling image \"agent:1\"");
    let told = look(&stuck, &[]);
    assert_eq!((told.pull_failure, told.class), (true, Some(FailureClass::Unknown)));
    let cause = "Failed to pull image \"agent:1\": rpc error: code = NotFound desc = failed to pull and unpack image \"docker.io/library/agent:1\": failed to resolve reference \"docker.io/library/agent:1\": docker.io/library/agent:1: not found";
    let told = look(&stuck, &[event("Failed", cause)]);
    assert_eq!(told.class, Some(FailureClass::NotFound));
    assert!(told.evidence.iter().any(|evidence| evidence.from.starts_with("Event Failed")));
    assert!(told.evidence.iter().any(|evidence| evidence.says.contains("nothing is concluded from it alone")));
}

#[test]
fn what_only_looks_like_a_pull_failure_is_none() {
    let told =
        look(&pod("a", "agent:1", 0).waits("CrashLoopBackOff", "back-off 5m0s restarting failed container"), &[]);
    assert_eq!((told.pull_failure, told.class, told.permanence), (false, None, None));
    assert!(told.evidence.iter().any(|evidence| evidence.says.contains("CrashLoopBackOff")));
}

#[test]
fn no_record_is_taken_for_the_one_of_another_namespace() {
    assert_eq!(record_of(&pod("a", "agent:1", 0), &[]), None);
}

#[test]
fn a_look_at_a_pod_tells_of_every_real_message_what_its_label_says() {
    const REAL: [&str; 2] = [
        include_str!("../../../../tests/data/pull-messages.tsv"),
        include_str!("../../../../tests/data/more-messages.tsv"),
    ];
    let mut seen = (0, 0);
    for line in REAL.into_iter().flat_map(|file| file.lines().skip(1)) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, source, reason, message, _, class, _, image, _] = fields[..] else { panic!("{line}") };
        let image = if image.is_empty() { "agent:1" } else { image };
        if source == "waiting_status" {
            let told = look(&pod("a", image, 0).waits(reason, message), &[]);
            let expected = Some(class).filter(|class| *class != "NotPullFailure");
            assert_eq!(
                (told.pull_failure, told.class.map(FailureClass::as_str)),
                (expected.is_some(), expected),
                "{line}"
            );
            seen.0 += 1;
        } else if class != "NotPullFailure" {
            let stuck = pod("a", image, 0).waits("ImagePullBackOff", &format!("Back-off pulling image \"{image}\""));
            // A kubelet's Event says by its field path which container it is about.
            let heard = EventSight { container: Some("main".to_owned()), ..event(reason, message) };
            let told = look(&stuck, &[heard]);
            assert_eq!((told.pull_failure, told.class.map(FailureClass::as_str)), (true, Some(class)), "{line}");
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 200 && seen.1 > 150, "{seen:?}");
}
