//! The words of real kubelets and runtimes, and the laws that hold for any words.

use std::collections::BTreeSet;

use super::catalogue::{self, ROWS};
use super::{Cause, Diagnosis, FailureClass, Permanence, Scope, UnknownClass, Words, classify};

mod formats;
mod laws;
mod mutations;

/// Real messages with their class, as given with the design.
const GIVEN: &str = include_str!("../../../tests/data/pull-messages.tsv");
/// More real messages, found by ourselves.
const MORE: &str = include_str!("../../../tests/data/more-messages.tsv");

/// A line of those files. `class` is `NotPullFailure` where it is none, `retryable` what its collector thought.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    id: &'a str,
    reason: &'a str,
    message: &'a str,
    class: &'a str,
    retryable: &'a str,
    image: &'a str,
}

fn lines(file: &str) -> Vec<Line<'_>> {
    file.lines()
        .skip(1)
        .map(|line| {
            let [id, _source, reason, message, _runtime, class, retryable, image, _where] =
                line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            Line { id, reason, message, class, retryable, image }
        })
        .collect()
}

fn diagnose(reason: &str, message: &str) -> Diagnosis {
    classify(&Words { reason, message, image: None })
}

/// The class as the files name it. A bare back-off is `Unknown` there.
fn class_of(diagnosis: &Diagnosis) -> &'static str {
    match diagnosis {
        Diagnosis::PullFailure(cause) => cause.class.as_str(),
        Diagnosis::CauseElsewhere { .. } => FailureClass::Unknown.as_str(),
        Diagnosis::NotAPullFailure => "NotPullFailure",
    }
}

fn permanence_of(diagnosis: &Diagnosis) -> Option<Permanence> {
    match diagnosis {
        Diagnosis::PullFailure(cause) => Some(cause.permanence),
        Diagnosis::CauseElsewhere { .. } => Some(Permanence::Transient),
        Diagnosis::NotAPullFailure => None,
    }
}

fn cause(reason: &str, message: &str) -> Cause {
    match diagnose(reason, message) {
        Diagnosis::PullFailure(cause) => cause,
        other => panic!("{message}: {other:?}"),
    }
}

/// What may be said of a message that its collector thought permanent, ambiguous or transient. Never more than that; less
/// where the design asks for corroboration (denied or not there, TLS) or for patience (DNS).
fn may_be(retryable: &str, permanence: Permanence) -> bool {
    match permanence {
        Permanence::Permanent => retryable == "permanent",
        Permanence::Unclear => retryable != "transient",
        Permanence::Transient => retryable != "permanent",
    }
}

fn assert_file(file: &str) {
    let mut wrong = Vec::new();
    for line in lines(file) {
        let diagnosis = diagnose(line.reason, line.message);
        let permanence = permanence_of(&diagnosis);
        if class_of(&diagnosis) != line.class || permanence.is_some_and(|is| !may_be(line.retryable, is)) {
            wrong.push(format!("{}: {} {permanence:?} {}", line.id, class_of(&diagnosis), line.message));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn all_given_messages_have_their_class_and_none_is_more_permanent_than_given() {
    assert_eq!(lines(GIVEN).len(), 64);
    assert_file(GIVEN);
}

#[test]
fn all_messages_found_by_ourselves_have_their_class_and_none_is_more_permanent_than_found() {
    assert!(lines(MORE).len() >= 150);
    assert_file(MORE);
}

#[test]
fn given_permanent_messages_are_permanent_but_where_the_design_asks_for_corroboration() {
    for line in lines(GIVEN).iter().filter(|line| line.retryable == "permanent" && line.class != "NotPullFailure") {
        let corroborated = matches!(line.class, "NotFoundOrDenied" | "Tls") || line.message.contains("hcsshim");
        let expected = if corroborated { Permanence::Unclear } else { Permanence::Permanent };
        assert_eq!(permanence_of(&diagnose(line.reason, line.message)), Some(expected), "{}", line.id);
    }
}

#[test]
fn the_image_is_found_in_the_given_messages() {
    for line in lines(GIVEN).iter().filter(|line| !line.image.is_empty() && line.class != "NotPullFailure") {
        let image = match diagnose(line.reason, line.message) {
            Diagnosis::PullFailure(cause) => cause.image,
            Diagnosis::CauseElsewhere { image } => image,
            Diagnosis::NotAPullFailure => None,
        };
        assert_eq!(image.as_deref(), Some(line.image), "{}", line.id);
    }
}

#[test]
fn what_only_looks_like_a_pull_failure_is_none() {
    for (reason, message) in [
        ("CrashLoopBackOff", "back-off 5m0s restarting failed container=a pod=b_c(d)"),
        ("CreateContainerConfigError", "secret \"a\" not found"),
        ("CreateContainerError", "failed to pull image: no space left on device"),
        ("RunContainerError", "exec format error"),
        ("ContainerCreating", ""),
        ("PodInitializing", ""),
        ("BackOff", "Back-off restarting failed container"),
        ("Failed", "Error: failed to create containerd task: exec: \"/app\": exec format error"),
        ("Failed", "Error: context deadline exceeded"),
        ("Pulled", "Successfully pulled image \"a\" in 1s"),
        ("FailedCreatePodSandBox", "Failed to create pod sandbox: failed to pull image \"pause\": 401 Unauthorized"),
        (
            "Failed",
            "Failed to create pod sandbox: failed to get sandbox image \"pause:3.9\": failed to pull image \"pause:3.9\": i/o timeout",
        ),
        ("", ""),
        ("SomethingNew", "manifest unknown"),
    ] {
        assert_eq!(diagnose(reason, message), Diagnosis::NotAPullFailure, "{reason}: {message}");
    }
}

#[test]
fn a_back_off_without_a_cause_points_elsewhere_and_names_the_image() {
    for (reason, message, image) in [
        ("ImagePullBackOff", "Back-off pulling image \"a:1\"", Some("a:1")),
        ("BackOff", "spec.containers{c}: Back-off pulling image \"a:1\"", Some("a:1")),
        (
            "FailedSync",
            "Error syncing pod, skipping: failed to \"StartContainer\" for \"c\" with ImagePullBackOff: \"Back-off pulling image \\\"a:1\\\"\"",
            Some("a:1"),
        ),
        ("Failed", "Error: ErrImagePull", None),
        ("Failed", "Error: ImagePullBackOff", None),
        ("ErrImagePull", "", None),
    ] {
        assert_eq!(
            diagnose(reason, message),
            Diagnosis::CauseElsewhere { image: image.map(str::to_owned) },
            "{message}"
        );
    }
}

#[test]
fn a_reason_that_says_it_all_needs_no_message() {
    for (reason, class, permanence) in [
        ("ErrImageNeverPull", FailureClass::NeverPull, Permanence::Permanent),
        ("InvalidImageName", FailureClass::InvalidName, Permanence::Permanent),
        ("ImageInspectError", FailureClass::InspectFailed, Permanence::Unclear),
        ("RegistryUnavailable", FailureClass::RegistryError, Permanence::Transient),
        ("SignatureValidationFailed", FailureClass::SignatureInvalid, Permanence::Permanent),
    ] {
        for (reason, message) in [(reason, String::new()), ("Failed", format!("Error: {reason}"))] {
            let cause = cause(reason, &message);
            assert_eq!((cause.class, cause.permanence), (class, permanence), "{reason} {message}");
            assert_eq!(cause.summary, class.summary());
        }
    }
}

#[test]
fn a_signature_that_could_not_be_fetched_is_not_a_wrong_one() {
    let cause = cause(
        "SignatureValidationFailed",
        "image pull failed for r.io/a:1 because the signature validation failed: Get \"https://r.io/sig\": dial tcp: i/o timeout",
    );
    assert_eq!((cause.class, cause.permanence), (FailureClass::SignatureInvalid, Permanence::Transient));
    assert_eq!(cause.image.as_deref(), Some("r.io/a:1"));
}

#[test]
fn a_nodes_own_policy_that_cannot_be_read_says_nothing_of_the_signature() {
    for reason in ["SignatureValidationFailed", "ErrImagePull"] {
        let cause = cause(
            reason,
            "loading trust policy: invalid policy in \"/etc/containers/policy.json\": unexpected end of JSON",
        );
        assert_eq!((cause.class, cause.permanence), (FailureClass::SignatureInvalid, Permanence::Unclear), "{reason}");
    }
}

#[test]
fn the_image_of_an_image_volume_is_the_volumes_and_a_longer_name_is_the_given_ones() {
    let image = |message, given| match classify(&Words { reason: "ErrImagePull", message, image: Some(given) }) {
        Diagnosis::PullFailure(cause) => cause.image.unwrap(),
        other => panic!("{other:?}"),
    };
    let text = "failed to pull and unpack image \"docker.io/library/nginx:latest\": i/o timeout";
    assert_eq!(image(text, "nginx"), "nginx");
    assert_eq!(image(text, "r.io/app:1"), "docker.io/library/nginx:latest");
    assert_eq!(image("i/o timeout", "r.io/app:1"), "r.io/app:1");
    // A volume may be of another tag of the very repository.
    let text = "failed to pull and unpack image \"r.io/app:2\": failed to resolve image: r.io/app:2: not found";
    assert_eq!((image(text, "r.io/app:1"), image(text, "r.io/app:2")), ("r.io/app:2".into(), "r.io/app:2".into()));
    assert_eq!(image(text, "r.io/app:1@sha256:1"), "r.io/app:1@sha256:1");
}

#[test]
fn the_summary_is_the_innermost_cause_and_the_remedy_names_the_image() {
    let told = cause(
        "Failed",
        "Failed to pull image \"r.io/a:1\": rpc error: code = Unknown desc = failed to pull and unpack image \"r.io/a:1\": \
         failed to resolve reference \"r.io/a:1\": failed to do request: Head \"https://r.io/v2/a/manifests/1\": dial tcp 10.0.0.1:443: i/o timeout",
    );
    assert_eq!(told.summary, "dial tcp 10.0.0.1:443: i/o timeout");
    assert!(told.remedy.contains("r.io/a:1"), "{}", told.remedy);
    let told =
        cause("ErrImageNeverPull", "Container image \"optio-node:latest\" is not present with pull policy of Never");
    assert!(told.remedy.contains("optio-node:latest"), "{}", told.remedy);
}

#[test]
fn every_row_of_the_table_is_sound() {
    let mut seen = BTreeSet::new();
    for row in ROWS.iter() {
        assert!(regex::Regex::new(&catalogue::whole_words(row.pattern)).is_ok(), "{}", row.pattern);
        assert!(seen.insert(row.pattern), "twice: {}", row.pattern);
        assert!(!row.source.is_empty(), "{}", row.pattern);
        let lower = row.pattern.replace("\\S", "").replace("\\W", "");
        assert_eq!(lower, lower.to_lowercase(), "is matched against lower case");
        let may_be_permanent = match row.class {
            FailureClass::NeverPull
            | FailureClass::InvalidName
            | FailureClass::NotFound
            | FailureClass::Unauthorized
            | FailureClass::PlatformMismatch
            | FailureClass::SignatureInvalid
            | FailureClass::CorruptImage
            | FailureClass::InspectFailed => true,
            FailureClass::NeverPullNoAccess
            | FailureClass::NotFoundOrDenied
            | FailureClass::RateLimited
            | FailureClass::Network
            | FailureClass::RegistryError
            | FailureClass::Tls
            | FailureClass::DiskFull
            | FailureClass::NodeThrottle
            | FailureClass::Unknown => false,
        };
        assert!(may_be_permanent || row.permanence != Permanence::Permanent, "{}", row.pattern);
    }
}

#[test]
fn classes_print_and_parse_and_only_the_design_decides_their_scope_and_brake() {
    for class in FailureClass::ALL {
        assert_eq!(class.to_string().parse(), Ok(class));
        assert!(!class.remedy(None).contains('{'));
    }
    assert_eq!("notfound".parse::<FailureClass>(), Err(UnknownClass("notfound".to_owned())));
    for class in ["NeverPull", "NeverPullNoAccess", "PlatformMismatch", "DiskFull", "CorruptImage"] {
        assert_eq!(class.parse::<FailureClass>().map(FailureClass::scope), Ok(Scope::Node));
    }
    let past_the_brake: Vec<_> = FailureClass::ALL.into_iter().filter(|class| !class.goes_through_brake()).collect();
    use FailureClass::{InvalidName, NeverPull, NeverPullNoAccess, PlatformMismatch};
    assert_eq!(past_the_brake[..4], [NeverPull, NeverPullNoAccess, InvalidName, PlatformMismatch]);
    use FailureClass::{DiskFull, InspectFailed, NodeThrottle};
    assert_eq!(past_the_brake[4..], [DiskFull, NodeThrottle, InspectFailed], "a node's own");
}
