//! What is promised about references and patterns: a table made with the original Go code, the behaviour of patterns in
//! sentences, and laws that hold for any text.

mod laws;
mod patterns;
mod references;
mod speed;

use super::{ImageName, ImagePattern, ImageReference};

fn reference(text: &str) -> ImageReference {
    ImageReference::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn pattern(text: &str) -> ImagePattern {
    ImagePattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
}
