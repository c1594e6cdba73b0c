//! The laws of `fuzz/`, over its seeds and over what becomes of them when bytes are changed, cut out and put in.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::fuzz;

/// Pieces that mean something to one of the readers.
const PIECES: [&str; 24] = [
    "\"", "{", "}", "[", "]", ":", ",", "null", "true", "0", "-1", "\\", "\u{0}", "é", "*", "**", "/", "@", "\n",
    "Never", "\"uid\"", "\"spec\"", "sha256:", "1e999",
];

/// What is done to a seed.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index, Index),
    Insert(Index, &'static str),
    Repeat(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (index(), index()).prop_map(|(a, b)| Change::Cut(a, b)),
        (index(), proptest::sample::select(&PIECES[..])).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (index(), index()).prop_map(|(a, b)| Change::Repeat(a, b)),
    ]
}

/// A short stretch: a change of half the text is soon no text at all.
fn stretch(length: usize, a: &Index, b: &Index) -> std::ops::Range<usize> {
    let start = a.index(length + 1);
    start..(start + b.index(24)).min(length)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        match change {
            Change::Flip(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Flip(..) => {}
            Change::Cut(a, b) => {
                bytes.drain(stretch(bytes.len(), a, b));
            }
            Change::Insert(at, piece) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, piece.bytes());
            }
            Change::Repeat(a, b) => {
                let stretch = stretch(bytes.len(), a, b);
                let piece = bytes[stretch.clone()].to_vec();
                bytes.splice(stretch.end..stretch.end, piece);
            }
        }
    }
    bytes
}

fn seeds(goal: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(goal);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .expect("a folder of seeds")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed")))
        .collect();
    seeds.sort();
    assert!(seeds.len() > 4, "{} has no seeds", folder.display());
    seeds
}

fn hold(goal: &str, law: fn(&[u8]), cases: u32) {
    let seeds = seeds(goal);
    for (name, seed) in &seeds {
        let held = catch_unwind(AssertUnwindSafe(|| law(seed)));
        assert!(held.is_ok(), "the law of {goal} does not hold for {name}");
    }
    // For a longer search, without libFuzzer: PROPTEST_CASES=1000000.
    let cases = std::env::var("PROPTEST_CASES").map_or(cases, |asked| asked.parse().expect("a number of cases"));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (any::<Index>(), prop::collection::vec(change(), 1..6));
    let held = runner.run(&strategy, |(pick, changes)| {
        let input = changed(pick.get(&seeds).1.clone(), &changes);
        let held = catch_unwind(AssertUnwindSafe(|| law(&input)));
        prop_assert!(held.is_ok(), "{:?}", String::from_utf8_lossy(&input));
        Ok(())
    });
    if let Err(error) = held {
        panic!("the law of {goal} does not hold: {error}");
    }
}

#[test]
fn every_review_has_an_answer_that_the_api_server_can_use() {
    hold("review", fuzz::review::holds, 1_500);
}

#[test]
fn every_reference_and_pattern_is_canonical_and_nothing_matches_by_prefix() {
    hold("reference", fuzz::reference::holds, 4_000);
}

#[test]
fn every_policy_is_compiled_or_refused_with_a_sentence() {
    hold("policy", fuzz::policy::holds, 1_500);
}

#[test]
fn any_words_have_a_class_and_what_nobody_has_taught_us_is_not_permanent() {
    hold("words", fuzz::words::holds, 1_500);
}
