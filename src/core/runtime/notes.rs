//! The sentences of Events, conditions and annotations.
//!
//! Enters: what is known of a failure. Leaves: text within the bounds of the API.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::cause::FailureClass;
use super::super::reason::Reason;
use super::effect::{
    CLASS_ANNOTATION, FAILED_AT_ANNOTATION, IMAGE_ANNOTATION, MESSAGE_ANNOTATION, REMEDY_ANNOTATION, STATE_LABEL,
    STATE_PERMANENTLY_FAILED,
};

/// The API refuses longer notes.
const NOTE_LIMIT: usize = 1_000;

/// What a task is failed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conviction {
    pub reason: Reason,
    pub class: Option<FailureClass>,
    /// As written.
    pub image: String,
    pub key: String,
    pub message: String,
    pub remedy: String,
}

/// Cut at a character, with a mark that it was.
pub fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub(3);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", text.get(..end).unwrap_or_default())
}

pub(super) fn note(audit: bool, text: &str) -> String {
    let prefix = if audit { "(audit) " } else { "" };
    cut(&format!("{prefix}{text}"), NOTE_LIMIT)
}

impl Conviction {
    /// Cause and remedy in one line.
    pub fn sentence(&self, attempts: u32) -> String {
        let Self { reason, class, image, message, remedy, .. } = self;
        let class = class.map_or("denied", FailureClass::as_str);
        let lead = if *reason == Reason::PullRetriesExhausted {
            format!("image {image} could not be pulled in {attempts} attempts ({class}): {message}")
        } else if *reason == Reason::DeniedTooLong {
            format!("pods are denied at admission for image {image}: {message}")
        } else {
            format!("image {image} cannot be pulled ({class}): {message}")
        };
        let lead = lead.trim_end_matches(['.', ' ', ':']);
        if remedy.is_empty() { format!("{lead}.") } else { format!("{lead}. {remedy}") }
    }

    pub fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([(STATE_LABEL.to_owned(), STATE_PERMANENTLY_FAILED.to_owned())])
    }

    pub fn annotations(&self, failed_at: Timestamp) -> BTreeMap<String, String> {
        let class = self.class.map_or("", FailureClass::as_str);
        [
            (CLASS_ANNOTATION, class),
            (IMAGE_ANNOTATION, &self.image),
            (MESSAGE_ANNOTATION, &cut(&self.message, NOTE_LIMIT)),
            (REMEDY_ANNOTATION, &cut(&self.remedy, NOTE_LIMIT)),
            (FAILED_AT_ANNOTATION, &failed_at.to_string()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }
}
