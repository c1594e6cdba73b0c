//! The table: which words mean which class.
//!
//! A row is a pattern, the class it means, how permanent that evidence is, and where the words come from. To teach a new
//! wording: put the message, with its source, into `tests/data/more-messages.tsv`, see it fail, add a row to the file of
//! its theme (`registry`, `network`, `content`, `node`).
//!
//! How a pattern is matched:
//! * against lower-case text in which every name, address, digest and page is `#####` (see `mask`); `#+` matches a name,
//!   quoted or not;
//! * as whole words only: before it is the start, a blank, a quote or a bracket, after it the end, a blank, a quote, a
//!   bracket or punctuation that ends a word. Both are added to each pattern here, so no row can forget them;
//! * a status number only beside a word that makes it one (`status code 404`, `404 not found`), never alone.
//!
//! Which row decides, when several match:
//! * **outranks**: wins wherever it stands. For what is certain once it is said, and for 429 and 5xx: whatever a failing
//!   registry or proxy says beside them is not to be believed;
//! * **decides**: the last one wins, because errors are wrapped from the inside out and the innermost stands last;
//! * **unpacks**: only when nothing above matches. For wrappings that say that a layer was being stored: by then the
//!   registry had said yes, so a bare "access is denied" or "not found" behind them is the file system's;
//! * **hints**: only when nothing else matches. For other wrappings that say where it failed, and for bare tails.
//!
//! A longer match wins over a shorter one that ends at the same place; then the earlier row.

mod content;
mod network;
mod node;
mod registry;

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::class::{FailureClass, Permanence};

/// Which row decides when several match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Hints,
    Unpacks,
    Decides,
    Outranks,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub weight: Weight,
    pub class: FailureClass,
    pub permanence: Permanence,
    pub pattern: &'static str,
    /// Where the words come from.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader of the table; a test sees that it is there"))]
    pub source: &'static str,
    /// What to do, where this wording allows a better advice than its class.
    pub remedy: Option<&'static str>,
}

impl Row {
    const fn new(weight: Weight, class: FailureClass, pattern: &'static str, source: &'static str) -> Self {
        Self { weight, class, permanence: class.permanence(), pattern, source, remedy: None }
    }

    /// A wording whose evidence is stronger or weaker than its class's.
    const fn but(mut self, permanence: Permanence) -> Self {
        self.permanence = permanence;
        self
    }

    const fn remedy(mut self, advice: &'static str) -> Self {
        self.remedy = Some(advice);
        self
    }
}

const fn outranks(class: FailureClass, pattern: &'static str, source: &'static str) -> Row {
    Row::new(Weight::Outranks, class, pattern, source)
}

const fn decides(class: FailureClass, pattern: &'static str, source: &'static str) -> Row {
    Row::new(Weight::Decides, class, pattern, source)
}

/// That a layer was being stored when it failed.
const fn unpacks(pattern: &'static str, source: &'static str) -> Row {
    Row::new(Weight::Unpacks, FailureClass::CorruptImage, pattern, source)
}

const fn hints(class: FailureClass, pattern: &'static str, source: &'static str) -> Row {
    Row::new(Weight::Hints, class, pattern, source)
}

/// `$number` where a status stands: `status code 404`, `http status: 404`, `from registry 404 (`, `404 not found`.
macro_rules! status {
    ($number:literal, $phrase:literal) => {
        concat!(
            r"(?:(?:status(?: ?code)?|http(?: error| status| response)?(?: code)?|response(?: status)?(?: code)?|from registry|error response|server error)[:=]? ?\(?",
            "(?:", $number, ")",
            r"(?: (?:", $phrase, r"))?(?: response body)?",
            "|(?:", $number, ") (?:", $phrase, "))"
        )
    };
}
use status;

/// All rows, theme after theme.
pub(super) static ROWS: LazyLock<Vec<&'static Row>> =
    LazyLock::new(|| [node::ROWS, content::ROWS, registry::ROWS, network::ROWS].into_iter().flatten().collect());

/// The rows, compiled. A pattern that does not compile matches nothing; a test sees to it that there is none.
///
/// Not one `RegexSet` of them all: its automaton grows with every pair of rows, and it was ten times slower than asking
/// one after the other.
static COMPILED: LazyLock<Vec<(&'static Row, Regex)>> = LazyLock::new(|| {
    let compiled = |row: &&'static Row| {
        let regex = RegexBuilder::new(&whole_words(row.pattern)).unicode(false).build().ok()?;
        Some((*row, regex))
    };
    ROWS.iter().filter_map(compiled).collect()
});

/// The pattern, so that it matches whole words only.
pub(super) fn whole_words(pattern: &str) -> String {
    let pattern = pattern.replace("#+", r#""?#+"?"#);
    format!(r#"(?:^|[\s"'(\[{{<>,;=])(?<words>{pattern})(?:$|[\s"')\]}},;!<>]|[.:](?:$|[\s"')\]}},\[{{<]))"#)
}

/// A row that matches, and where it does so last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub row: &'static Row,
    pub start: usize,
    pub end: usize,
}

/// Every row that matches a masked text.
pub(super) fn matches(masked: &str) -> Vec<Match> {
    let text = masked.as_bytes();
    COMPILED
        .iter()
        .filter(|(_, regex)| regex.is_match(text))
        .filter_map(|(row, regex)| {
            let words = regex.captures_iter(text).last()?.name("words")?;
            Some(Match { row, start: words.start(), end: words.end() })
        })
        .collect()
}
