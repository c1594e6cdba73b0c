//! The laws that hold for any words.

use proptest::prelude::*;

use super::super::mask::Text;
use super::super::{Diagnosis, FailureClass, Permanence, SUMMARY_LIMIT};
use super::{GIVEN, Line, MORE, cause, class_of, diagnose, lines, permanence_of};

/// Words that decide elsewhere: names made of them must decide nothing.
const SCARY: &[&str] = &[
    "unauthorized",
    "not-found",
    "notfound",
    "timeout",
    "429",
    "401",
    "404",
    "503",
    "500",
    "eof",
    "denied",
    "x509",
    "tls",
    "toomanyrequests",
    "manifest",
    "unknown",
    "manifest-unknown",
    "no",
    "not",
    "found",
    "does",
    "is",
    "image",
    "tag",
    "name",
    "blobs",
    "manifests",
    "sha256",
    "i",
    "o",
    "net",
    "http",
    "status",
    "code",
    "connection",
    "refused",
    "forbidden",
    "rate-limit",
    "quota",
    "exceeded",
    "pull",
    "qps",
    "never",
    "sandbox",
    "pause",
    "signature",
    "rejected",
    "insufficient_scope",
    "latest",
    "errimagepull",
    "imagepullbackoff",
    "schema",
    "platform",
    "invalid",
    "reference",
    "format",
    "error",
    "in",
    "for",
    "artifact",
    "err",
    "mirrors",
    "html",
    "docker",
    "library",
    "access",
    "space",
    "left",
    "device",
    "registryunavailable",
];

/// A reference as any registry would take it, of the worst words.
fn scary_image() -> impl Strategy<Value = String> {
    let word = || proptest::sample::select(SCARY);
    let part = || prop_oneof![word().prop_map(str::to_owned), (word(), word()).prop_map(|(a, b)| format!("{a}-{b}"))];
    let host = prop_oneof![
        Just(String::new()),
        (word(), word()).prop_map(|(a, b)| format!("{a}.{b}/")),
        (word(), proptest::sample::select(&[401_u16, 404, 429, 500, 503, 5000][..]))
            .prop_map(|(a, port)| format!("{a}:{port}/")),
    ];
    let tag = prop_oneof![
        Just(String::new()),
        part().prop_map(|tag| format!(":{tag}")),
        Just(format!("@sha256:{}", "404".repeat(21) + "4")),
    ];
    (host, proptest::collection::vec(part(), 1..4), tag)
        .prop_map(|(host, parts, tag)| format!("{host}{}{tag}", parts.join("/")))
}

/// The message with another image in it, also where a runtime gives its longer name or only a part of it.
fn renamed(line: &Line<'_>, image: &str) -> String {
    let (repository, tag) = match line.image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (line.image, ""),
    };
    let message = line.message.replace(line.image, image);
    let message = match tag {
        "" => message,
        tag => message.replace(&format!("manifest {tag} in {repository}"), &format!("manifest timeout in {image}")),
    };
    let path = repository.split_once('/').map_or(repository, |(_, path)| path);
    message.replace(&format!("/v2/{path}/"), &format!("/v2/{image}/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_of_an_image_changes_the_class(image in scary_image(), pick in any::<proptest::sample::Index>()) {
        let all: Vec<_> = [lines(GIVEN), lines(MORE)].concat().into_iter().filter(|line| !line.image.is_empty()).collect();
        let line = pick.get(&all);
        let message = renamed(line, &image);
        let diagnosis = diagnose(line.reason, &message);
        prop_assert_eq!(class_of(&diagnosis), line.class, "{}", message);
        prop_assert_eq!(permanence_of(&diagnosis), permanence_of(&diagnose(line.reason, line.message)), "{}", message);
    }

    #[test]
    fn any_text_has_an_answer_and_always_the_same(reason in ".{0,20}", message in "\\PC{0,300}") {
        for reason in [reason.as_str(), "ErrImagePull", "Failed", "FailedSync", "InspectFailed"] {
            let diagnosis = diagnose(reason, &message);
            prop_assert_eq!(&diagnosis, &diagnose(reason, &message));
            if let Diagnosis::PullFailure(cause) = diagnosis {
                prop_assert!(cause.summary.len() <= SUMMARY_LIMIT && !cause.summary.contains('\n') && !cause.summary.is_empty());
                prop_assert!(!cause.remedy.is_empty());
            }
        }
    }

    #[test]
    fn text_of_known_pieces_in_any_order_has_an_answer(pieces in proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(SCARY).prop_map(str::to_owned),
            proptest::sample::select(&[": ", "\"", "\\\"", "[", "]", ", ", "<html>", "</html>", "'", "(", ")", "; artifact err: ", "ä", "\u{2003}", "https://",
                "Failed to pull image \"", "Back-off pulling image \"", "failed to \"StartContainer\" for \"", "\" with ", "Mirrors also failed: ["][..]).prop_map(str::to_owned),
        ], 0..40)) {
        let message = pieces.concat();
        let text = Text::new(&message);
        prop_assert_eq!(text.plain.len(), text.masked.len());
        for reason in ["ErrImagePull", "Failed", "FailedSync", ""] {
            let _ = diagnose(reason, &message);
        }
    }

    #[test]
    fn unknown_text_is_never_permanent(words in proptest::collection::vec("[bcdfgkvw]{3,9}", 1..30), reason in proptest::sample::select(
        &["ErrImagePull", "ImagePullBackOff", "Failed", "FailedSync", "PullImageError"][..])) {
        let cause = cause(reason, &format!("Failed to pull image \"r.io/a:1\": {}", words.join(" ")));
        prop_assert_eq!((cause.class, cause.permanence), (FailureClass::Unknown, Permanence::Transient));
    }

    #[test]
    fn a_long_message_is_judged_by_its_end(noise in 1_usize..40) {
        let message = format!("failed to pull and unpack image \"r.io/a:1\": {}: i/o timeout", "layer after layer, ".repeat(noise * 100));
        let cause = cause("ErrImagePull", &message);
        prop_assert_eq!((cause.class, cause.image.as_deref()), (FailureClass::Network, Some("r.io/a:1")));
        prop_assert!(cause.summary.len() <= SUMMARY_LIMIT);
    }
}
