//! The algorithm: which row of the catalogue decides, and what is told to people.

use std::cmp::Reverse;
use std::sync::LazyLock;

use regex::Regex;

use super::catalogue::{self, Match, Weight};
use super::class::{FailureClass, Permanence, fill};
use super::mask::{Text, boundary};
use super::symptom::{Symptom, Teller, symptom};
use super::{Cause, Diagnosis, SUMMARY_LIMIT, Words};

/// Says why an image did not come. Total: any text has an answer, and what nobody has taught us is `Unknown`.
pub fn classify(words: &Words<'_>) -> Diagnosis {
    let text = Text::new(words.message);
    let (teller, cause) = match symptom(words.reason, &text) {
        Symptom::Other => return Diagnosis::NotAPullFailure,
        Symptom::Pull { teller, cause } => (teller, cause),
    };
    let image = image(words.image, &text.plain);
    let Text { plain, masked } = Text::part(text.plain.get(cause).unwrap_or_default());
    let silent = says_nothing(&masked);
    if silent && teller == Teller::Pull {
        return Diagnosis::CauseElsewhere { image };
    }
    let found = if silent { None } else { verdict(&masked) };
    let (class, mut permanence) = judge(teller, found.as_ref());
    // What decides stands at the end: where that was cut off, only what is certain once it is said stays certain.
    if cut_off(words.message) && found.is_some_and(|found| found.row.weight != Weight::Outranks) {
        permanence = permanence.max_unclear();
    }
    let particular = found.as_ref().filter(|found| found.row.class == class || class == FailureClass::InspectFailed);
    let remedy = match particular.and_then(|found| found.row.remedy) {
        Some(advice) => fill(advice, image.as_deref()),
        None => class.remedy(image.as_deref()),
    };
    let summary = summary(&plain, &masked, found.map(|found| found.start), class);
    Diagnosis::PullFailure(Cause { class, permanence, image, summary, remedy })
}

/// The most that an Event's text may have, in bytes.
const MOST_OF_AN_EVENT: usize = 1024;

/// Whether a text was shortened to what an Event may have.
fn cut_off(message: &str) -> bool {
    let message = message.trim_end();
    let about = MOST_OF_AN_EVENT - 24..=MOST_OF_AN_EVENT;
    message.len() == MOST_OF_AN_EVENT
        || about.contains(&message.len()) && (message.ends_with("...") || message.ends_with('\u{2026}'))
}

/// A back-off or a reason that is only repeated has no cause in it.
fn says_nothing(masked: &str) -> bool {
    let mut words = masked.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.all(|word| matches!(word, "error" | "errimagepull" | "imagepullbackoff" | "failed"))
}

/// What decides in this text.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    row: &'static catalogue::Row,
    permanence: Permanence,
    start: usize,
}

/// A class from who tells it and what it says.
fn judge(teller: Teller, found: Option<&Verdict>) -> (FailureClass, Permanence) {
    let told = found.map(|found| (found.row.class, found.permanence));
    match teller {
        Teller::NeverPull => own(FailureClass::NeverPull),
        Teller::InvalidName => own(FailureClass::InvalidName),
        Teller::Pull => told.unwrap_or(own(FailureClass::Unknown)),
        Teller::Registry => told.unwrap_or(own(FailureClass::RegistryError)),
        Teller::Signature => match told {
            // The policy or the signature could not be fetched, or read: nobody has said that it is wrong.
            Some((FailureClass::SignatureInvalid, permanence)) | Some((_, permanence @ Permanence::Transient)) => {
                (FailureClass::SignatureInvalid, permanence)
            }
            Some((_, Permanence::Permanent | Permanence::Unclear)) | None => own(FailureClass::SignatureInvalid),
        },
        Teller::Inspect => match told {
            Some((FailureClass::InvalidName, _)) if found.is_some_and(|found| found.row.weight == Weight::Outranks) => {
                own(FailureClass::InvalidName)
            }
            Some((FailureClass::InvalidName | FailureClass::InspectFailed, permanence))
            | Some((_, permanence @ Permanence::Transient)) => (FailureClass::InspectFailed, permanence),
            Some((_, Permanence::Permanent | Permanence::Unclear)) | None => own(FailureClass::InspectFailed),
        },
    }
}

fn own(class: FailureClass) -> (FailureClass, Permanence) {
    (class, class.permanence())
}

/// The verdict on a text. Where several credentials were tried it is a list of errors, and the most hopeful one counts:
/// with it, the next try may succeed.
fn verdict(masked: &str) -> Option<Verdict> {
    let mut last: Option<Verdict> = None;
    for (offset, part) in attempts(masked) {
        let Some(mut found) = decisive(part) else { continue };
        found.start += offset;
        last = match last {
            Some(before) if before.got_further_than(&found) => Some(before),
            Some(_) | None => Some(found),
        };
    }
    last
}

impl Verdict {
    /// Of two credentials: with one the next try may succeed, or it was let in where the other was turned away.
    fn got_further_than(&self, other: &Self) -> bool {
        let may_pass = |verdict: &Self| verdict.permanence == Permanence::Transient;
        let turned_away =
            |verdict: &Self| matches!(verdict.row.class, FailureClass::Unauthorized | FailureClass::NotFoundOrDenied);
        match (may_pass(self), may_pass(other)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => turned_away(other) && !turned_away(self),
        }
    }
}

/// What gRPC puts before an error, up to `desc = `. Kubelets from 1.30 on leave it out where the code is `Unknown`.
const CODE: &str = "rpc error: code = ";

/// The words of an error without its gRPC code.
fn without_code(error: &str) -> &str {
    match error.split_once(" desc = ") {
        Some((code, words)) if code.starts_with(CODE) => words,
        Some(_) | None => error,
    }
}

/// The parts of a list `[err1, err2]`, each with where it begins. The errors of a list begin with a gRPC code, or alike.
fn attempts(masked: &str) -> Vec<(usize, &str)> {
    const ALIKE: usize = 12;
    let mut errors = masked.trim_start_matches([':', ' ']);
    if without_code(errors).starts_with('[') {
        errors = without_code(errors);
    }
    let Some(list) = errors.strip_prefix('[') else { return vec![(0, masked)] };
    let Some(begin) = without_code(list).get(..ALIKE) else { return vec![(0, masked)] };
    let open = masked.len() - list.len();
    let mut starts = vec![0];
    starts.extend(list.match_indices(", ").map(|(at, comma)| at + comma.len()).filter(|at| {
        let rest = list.get(*at..).unwrap_or_default();
        rest.starts_with(CODE) || rest.starts_with(begin)
    }));
    let ends = starts.iter().skip(1).map(|start| start - ", ".len()).chain([list.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| Some((open + start, list.get(*start..end)?))).collect()
}

/// The row that decides one error.
fn decisive(masked: &str) -> Option<Verdict> {
    let matches = catalogue::matches(masked);
    let rank = |found: &&Match| (found.row.weight, found.end, Reverse(found.start));
    // `max_by_key` gives the last of equals, and the first row shall win.
    let best = matches.iter().rev().max_by_key(rank)?;
    let mixed = matches.iter().any(|other| contradicts(other, best));
    let permanence = match best.row.permanence {
        Permanence::Permanent if mixed => Permanence::Unclear,
        permanence => permanence,
    };
    Some(Verdict { row: best.row, permanence, start: best.start })
}

/// Whether another row makes a permanent one doubtful: something else says "not now", or the registry's "no" is told from
/// the unpacking, when the registry had long said yes.
fn contradicts(other: &Match, best: &Match) -> bool {
    let not_now = other.row.weight != Weight::Hints && other.row.permanence == Permanence::Transient;
    let of_the_image = matches!(
        best.row.class,
        FailureClass::CorruptImage | FailureClass::PlatformMismatch | FailureClass::SignatureInvalid
    );
    let unpacking = other.row.class == FailureClass::CorruptImage && !of_the_image;
    not_now || unpacking
}

/// Where a kubelet names the image that it was asked for.
const ASKED_FOR: &str = r#"(?i)(?:failed to pull image|back-off pulling image|container image|failed to inspect image|default image tag) ["']([^"']*)["']"#;

/// Where others name it, perhaps by its longer name.
const NAMED: &str = r#"(?i)(?:unpack image|pull image|resolve image|image|reference) "([^"\s]+)"|image pull failed for (\S+?),? (?:because|this may)|access denied for ([^\s,]+),|manifest for (\S+) not found"#;

static ASKED_FOR_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(ASKED_FOR).ok());
static NAMED_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(NAMED).ok());

/// The image that the words are about.
fn image(given: Option<&str>, plain: &str) -> Option<String> {
    let first = |pattern: &Option<Regex>| {
        let found = pattern.as_ref()?.captures(plain)?;
        let name = found.iter().skip(1).flatten().next()?.as_str().trim();
        (!name.is_empty()).then(|| name.to_owned())
    };
    let given = given.map(str::trim).filter(|given| !given.is_empty());
    if let Some(asked) = first(&ASKED_FOR_PATTERN) {
        return Some(asked);
    }
    match (given, first(&NAMED_PATTERN)) {
        // A runtime gives the longer name of the same image; of an image volume it gives another one.
        (Some(given), Some(named)) if !same_image(given, &named) => Some(named),
        (Some(given), _) => Some(given.to_owned()),
        (None, named) => named,
    }
}

/// Whether a runtime's name may be the longer form of a given one: the same repository, and the same tag where nobody
/// speaks of a digest.
fn same_image(given: &str, named: &str) -> bool {
    let (given_repository, given_tag) = parts(given);
    let (named_repository, named_tag) = parts(named);
    let same_tag = given.contains('@') || named.contains('@') || given_tag == named_tag;
    same_tag && named_repository.ends_with(given_repository)
}

/// Repository and tag of a name, whatever its digest.
fn parts(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or_default();
    let colon = name.rfind(':').filter(|colon| !name.get(*colon..).unwrap_or_default().contains('/'));
    let tag = colon.and_then(|colon| name.get(colon + 1..)).unwrap_or("latest");
    (name.get(..colon.unwrap_or(name.len())).unwrap_or_default(), tag)
}

/// A segment shorter than this says too little without the one before it.
const TELLING: usize = 24;

/// One line for people: the innermost segment, from the plain text.
fn summary(plain: &str, masked: &str, start: Option<usize>, class: FailureClass) -> String {
    // The artifact half of CRI-O 1.33+ is noise.
    let plain = plain.split_once("; artifact err: ").map_or(plain, |(image, _)| image);
    let end = plain.trim_end_matches(|c: char| c.is_whitespace() || "\"]}:".contains(c)).len();
    let start = start.unwrap_or_else(|| masked.get(..end).and_then(|text| text.rfind(": ")).map_or(0, |at| at + 2));
    let mut begin = segment(masked, start);
    if end.saturating_sub(begin) < TELLING && begin > 2 {
        begin = segment(masked, begin.saturating_sub(2));
    }
    let text = plain.get(begin..end).unwrap_or_default();
    // The code that gRPC puts before the words.
    let text = match text.split_once(" desc = ") {
        Some((code, words)) if code.contains("code = ") => words.trim(),
        _ => text.trim(),
    };
    if text.is_empty() {
        return class.summary().to_owned();
    }
    shorten(text)
}

/// Where the segment around a place begins: after the last `: ` before it.
fn segment(masked: &str, place: usize) -> usize {
    let before = masked.get(..place).unwrap_or_default();
    before.rfind(": ").map_or(0, |at| at + 2)
}

/// At most the limit, and never half a character.
fn shorten(text: &str) -> String {
    const MORE: &str = "...";
    if text.len() <= SUMMARY_LIMIT {
        return text.to_owned();
    }
    let cut = boundary(text, SUMMARY_LIMIT - MORE.len());
    format!("{}{MORE}", text.get(..cut).unwrap_or_default())
}
