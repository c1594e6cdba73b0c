//! The real messages once more, changed as life changes them: other names, other kubelets around them, other line ends,
//! the end cut off. The class stays right, or nothing is concluded; never is a permanent one made of it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::super::{Diagnosis, Permanence};
use super::formats::wrapped;
use super::{GIVEN, Line, MORE, class_of, diagnose, lines, permanence_of};

/// References that any registry would take, of words and numbers that decide elsewhere: (repository, tag).
const NAMES: &[(&str, &str)] = &[
    ("not-found", "latest"),
    ("unauthorized", "unauthorized"),
    ("denied", "401"),
    ("is", "not"),
    ("pause", "3.9"),
    ("timeout", "no-such-host"),
    ("team/no-space-left-on-device", "403"),
    ("toomanyrequests/manifest-unknown", "eof"),
    ("library/tls-handshake-timeout", "404"),
    ("r.io:404/unauthorized/not-found", "timeout-429"),
    ("10.0.0.1:5000/connection-refused/500/503", "x509"),
    ("i.o/timeout/blobs/manifests/sha256", "no-match-for-platform"),
    ("signature.rejected/errimageneverpull/pull-qps-exceeded", "invalid-reference-format"),
    ("localhost/requested_access/to/the/resource", "is-denied"),
];

fn all() -> Vec<Line<'static>> {
    [lines(GIVEN), lines(MORE)].concat()
}

/// Nothing changed in what was said: class and permanence are the same.
fn assert_same(line: &Line<'_>, expected: &Diagnosis, reason: &str, message: &str, wrong: &mut Vec<String>) {
    let diagnosis = diagnose(reason, message);
    if class_of(&diagnosis) != class_of(expected) || permanence_of(&diagnosis) != permanence_of(expected) {
        wrong.push(format!(
            "{}: {} {:?} for {} {:?}: {reason}: {message}",
            line.id,
            class_of(&diagnosis),
            permanence_of(&diagnosis),
            class_of(expected),
            permanence_of(expected),
        ));
    }
}

/// Where a URL or containers/image name a repository and a tag.
static PLACES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r#"(?<before>/v2/)(?<repository>[^"\s]+?)(?<between>/manifests/)(?<tag>[^"\s:?]+)"#,
        r#"(?<before>/v2/)(?<repository>[^"\s]+?)(?<between>/blobs/)(?<digest>[^"\s?]+)"#,
        r"(?<before>reading manifest )(?<tag>\S+)(?<between> in )(?<repository>[^\s:]+(?::\d+/[^\s:]+)?)",
        r"(?<before>status code \[manifests )(?<tag>[^\]\s]+)(?<between>\])",
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).unwrap())
    .collect()
});

/// The message with another image in it, wherever it is named.
fn renamed(line: &Line<'_>, repository: &str, tag: &str) -> String {
    let message = match line.image {
        "" => line.message.to_owned(),
        image => message_of(line.message, image, &format!("{repository}:{tag}")),
    };
    PLACES.iter().fold(message, |message, place| {
        let renamed = |found: &Captures<'_>| {
            let part = |name| found.name(name).map_or("", |part| part.as_str());
            let name = |name, other| if found.name(name).is_some() { other } else { "" };
            let (repository, tag) = (name("repository", repository), name("tag", tag));
            match found.get(0).is_some_and(|all| all.as_str().starts_with("/v2/")) {
                true => format!("{}{repository}{}{tag}{}", part("before"), part("between"), part("digest")),
                false => format!("{}{tag}{}{repository}", part("before"), part("between")),
            }
        };
        place.replace_all(&message, renamed).into_owned()
    })
}

/// By its full name, and by the longer one of a runtime.
fn message_of(message: &str, image: &str, other: &str) -> String {
    message.replace(&format!("docker.io/library/{image}"), other).replace(image, other)
}

#[test]
fn no_name_changes_what_a_real_message_means() {
    let mut wrong = Vec::new();
    for line in all() {
        let expected = diagnose(line.reason, line.message);
        for (repository, tag) in NAMES {
            assert_same(&line, &expected, line.reason, &renamed(&line, repository, tag), &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} {wrong:#?}", wrong.len());
}

/// What the runtime said, without the kubelet's words around it.
fn bare<'a>(line: &Line<'a>) -> Option<&'a str> {
    static KUBELET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"^(?:spec\.\w+\{[^}]*\}: )?(?:Failed to pull image|Back-off pulling image) "[^"]*":? ?(?:ErrImagePull: )?"#)
            .unwrap()
    });
    match line.reason {
        "ErrImagePull" if !line.message.is_empty() => Some(line.message),
        "Failed" | "ImagePullBackOff" | "FailedPullImage" => {
            let found = KUBELET.find(line.message)?;
            line.message.get(found.end()..).filter(|rest| !rest.is_empty())
        }
        _ => None,
    }
}

#[test]
fn no_kubelet_around_a_real_message_changes_what_it_means() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for line in all() {
        let Some(bare) = bare(&line) else { continue };
        seen += 1;
        let expected = diagnose(line.reason, line.message);
        for (reason, message) in wrapped(bare) {
            assert_same(&line, &expected, reason, &message, &mut wrong);
        }
    }
    assert!(seen > 250, "{seen}");
    assert!(wrong.is_empty(), "{} {wrong:#?}", wrong.len());
}

#[test]
fn what_the_recorder_puts_before_it_and_other_line_ends_change_nothing() {
    let mut wrong = Vec::new();
    for line in all() {
        let expected = diagnose(line.reason, line.message);
        let ends = line.message.replace("\\n", "\r\n");
        let broken = line.message.replacen(": ", ":\r\n ", 3);
        for message in [format!("{ends}\r\n"), format!("\r\n{broken}"), format!("  {}\n", line.message)] {
            assert_same(&line, &expected, line.reason, &message, &mut wrong);
        }
        if line.reason != "FailedSync" && !line.message.starts_with("spec.") && !line.message.is_empty() {
            for before in ["spec.initContainers{not-found-401}: ", "(combined from similar events): "] {
                assert_same(&line, &expected, line.reason, &format!("{before}{}", line.message), &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{} {wrong:#?}", wrong.len());
}

#[test]
fn a_message_cut_off_at_1024_bytes_is_never_more_permanent_than_the_whole() {
    const MOST: usize = 1024;
    // Every message at a few dozen places, not at the same ones.
    const STEP: usize = 17;
    let mut wrong = Vec::new();
    for (index, line) in all().into_iter().enumerate() {
        let Some(bare) = bare(&line) else { continue };
        let whole = diagnose(line.reason, line.message);
        // A name long enough that the cut comes wherever we want it.
        for (cut, _) in bare.char_indices().filter(|(cut, _)| cut % STEP == index % STEP) {
            let frame = "Failed to pull image \"r.io//a:1\": ".len() + cut + "...".len();
            let Some(name) = MOST.checked_sub(frame) else { continue };
            let told = bare.get(..cut).unwrap();
            let message = format!("Failed to pull image \"r.io/{}/a:1\": {told}...", "a".repeat(name));
            assert_eq!(message.len(), MOST);
            let diagnosis = diagnose("Failed", &message);
            let permanent = permanence_of(&diagnosis) == Some(Permanence::Permanent);
            if permanent && class_of(&diagnosis) != class_of(&whole) {
                wrong.push(format!("{}: {} for {}: {told}", line.id, class_of(&diagnosis), class_of(&whole)));
            }
            if matches!(diagnosis, Diagnosis::NotAPullFailure) {
                wrong.push(format!("{}: no pull failure: {told}", line.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} {wrong:#?}", wrong.len());
}
