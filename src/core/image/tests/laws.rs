//! Laws, for any text that proptest can think of.

use proptest::prelude::*;
use proptest::string::string_regex;

use super::super::{ImageName, ImagePattern, ImageReference, PatternSet};

const HOST: &str = concat!(
    r"(localhost|docker\.io|index\.docker\.io|[a-zA-Z0-9]{1,2}(-[a-z])?\.[a-zA-Z]{1,2}|[A-Z][a-z]{0,2}|a_b\.io)",
    r"|(localhost|docker\.io|a\.b|A|\[[0-9a-fA-F]{0,4}:[0-9a-fA-F:]{0,8}\])(:[0-9]{1,4})?",
);
const SEGMENT: &str = r"[ab0]{1,2}((\.|_|__|-{1,3})[ab0]{1,2}){0,2}";
const VERSION: &str = r"(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,6})?(@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?";

fn text(expression: &str) -> impl Strategy<Value = String> + use<> {
    string_regex(expression).expect("a valid expression")
}

/// References as people can write them.
fn written() -> impl Strategy<Value = String> {
    text(&format!("(({HOST})/)?{SEGMENT}(/{SEGMENT}){{0,3}}{VERSION}"))
}

/// Texts of the right alphabet, mostly wrong.
fn nearly() -> impl Strategy<Value = String> {
    text(r"([ab.:/@_*\[\]-]|\*\*|sha256:|localhost|docker\.io|A|é| ){0,12}")
}

/// Few letters, so that they often meet.
fn image() -> impl Strategy<Value = ImageReference> {
    text(concat!(
        r"((a\.b|A|docker\.io|localhost)/)?[ab]{1,2}(-[ab]{1,2})?(/[ab]{1,2}){0,3}",
        r"(:[ab][ab.]?)?(@sha256:(0{64}|1{64}))?",
    ))
    .prop_map(|text| ImageReference::parse(&text).expect("written by the grammar"))
}

fn glob() -> impl Strategy<Value = ImagePattern> {
    let one = r"([ab*]|[ab]\*|\*[ab]|[ab]{1,2}|a-\*|\*-[ab*])";
    let any = format!(r"(\*\*|{one})");
    let start = format!(r"((a\.b|A|docker\.io|localhost)/{any}|{one}|\*\*/{any})");
    let version = r"(:([ab*]|[ab][ab*]|\*[ab]))?(@sha256:(0{64}|1{64}))?";
    text(&format!(r"({start}(/{any}){{0,3}}{version}|\*\*)"))
        .prop_map(|text| ImagePattern::parse(&text).expect("written by the grammar"))
}

/// The meaning of path globs, in the plainest words.
fn naive(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([], _) => false,
        (["**", tail @ ..], _) => (0..=path.len()).any(|taken| naive(tail, &path[taken..])),
        (_, []) => false,
        ([head, tail @ ..], [first, rest @ ..]) => {
            naive_segment(head.as_bytes(), first.as_bytes()) && naive(tail, rest)
        }
    }
}

fn naive_segment(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', tail @ ..] => (0..=text.len()).any(|taken| naive_segment(tail, &text[taken..])),
        [byte, tail @ ..] => text.first() == Some(byte) && naive_segment(tail, &text[1..]),
    }
}

fn naive_matches(pattern: &ImagePattern, image: &ImageReference) -> bool {
    if pattern.as_str() == "**" {
        return true;
    }
    let (named, digest) = match pattern.as_str().split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (pattern.as_str(), None),
    };
    let (host, rest) = named.split_once('/').expect("canonical");
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let path: Vec<_> = path.split('/').collect();
    let segments: Vec<_> = image.repository().split('/').collect();
    host == image.registry()
        && naive(&path, &segments)
        && tag.is_none_or(|tag| image.tag().is_some_and(|text| naive_segment(tag.as_bytes(), text.as_bytes())))
        && digest.is_none_or(|digest| image.digest() == Some(digest))
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in any::<String>(), near in nearly()) {
        for text in [&text, &near] {
            let _ = ImageName::parse(text);
            let _ = ImagePattern::parse(text);
        }
    }

    #[test]
    fn whatever_is_accepted_prints_and_parses_as_itself(text in prop_oneof![written(), nearly()]) {
        if let Ok(name) = ImageName::parse(&text) {
            let printed = name.to_string();
            prop_assert_eq!(ImageName::parse(&printed), Ok(name.clone()));
            prop_assert_eq!(ImageName::parse(&printed).expect("parsed above").to_string(), printed);
        }
        if let Ok(pattern) = ImagePattern::parse(&text) {
            let printed = pattern.to_string();
            prop_assert_eq!(ImagePattern::parse(&printed).map(|again| again.to_string()), Ok(printed));
        }
    }

    #[test]
    fn what_people_can_write_is_a_reference_whose_parts_make_the_whole(text in written()) {
        let image = ImageReference::parse(&text).expect("written by the grammar");
        let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = image.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
        prop_assert_eq!(image.name(), format!("{}/{}", image.registry(), image.repository()));
        prop_assert_eq!(image.to_string(), format!("{}{tag}{digest}", image.name()));
        prop_assert!(image.lookup().ends_with(image.short_path()));
        // What is looked up is what the runtime lists, so it must be read back as the very same name.
        let listed = ImageReference::parse(image.lookup()).expect("canonical");
        prop_assert_eq!(listed.lookup(), image.lookup());
    }

    #[test]
    fn every_reference_is_a_pattern_of_itself(text in written()) {
        let image = ImageReference::parse(&text).expect("written by the grammar");
        for text in [text.as_str(), image.as_str(), image.name(), image.lookup()] {
            let pattern = ImagePattern::parse(text).expect("a reference is a pattern");
            prop_assert!(pattern.matches(&image), "{} and {}", pattern, image);
        }
    }

    #[test]
    fn patterns_mean_what_the_plain_words_say(pattern in glob(), image in image()) {
        prop_assert_eq!(pattern.matches(&image), naive_matches(&pattern, &image), "{} and {}", pattern, image);
    }

    #[test]
    fn a_set_answers_as_its_patterns_do_one_by_one(
        patterns in prop::collection::vec(glob(), 0..12),
        images in prop::collection::vec(image(), 8),
    ) {
        let set = PatternSet::new(patterns.iter().cloned());
        for image in images {
            let first = patterns.iter().position(|pattern| pattern.matches(&image));
            prop_assert_eq!(set.first_match(&image), first, "{}", image);
            prop_assert_eq!(set.matches(&image), first.is_some(), "{}", image);
        }
    }

    #[test]
    fn nothing_matches_by_prefix(image in image(), suffix in "[ab]{1,3}") {
        let pattern = ImagePattern::parse(image.name()).expect("a name is a pattern");
        let (host, path) = (image.registry(), image.repository());
        for other in [
            format!("{host}.{suffix}/{path}"),
            format!("{suffix}.{host}/{path}"),
            format!("{host}/{path}{suffix}"),
            format!("{host}/{path}/{suffix}"),
            format!("{host}/{suffix}/{path}"),
            format!("{suffix}.io/{host}/{path}").to_lowercase(),
        ] {
            let other = ImageReference::parse(&other).expect("a neighbour");
            prop_assert!(!pattern.matches(&other), "{} and {}", pattern, other);
        }
    }
}
