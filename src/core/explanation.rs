//! What was found, put into words when somebody reads it.
//!
//! Enters: what the words rest on. Leaves: a text. It must not borrow from nodes or pods: it may be read when these have
//! changed, and says what was found then. Under a hundred policies a review has dozens of findings, of which a few are
//! shown, and most of those that are only audited never are.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::message::{Evidence, Shown};

/// Whole sentences. Several findings share one; it is written at most once.
#[derive(Clone)]
pub struct Explanation(Arc<Sentences>);

struct Sentences {
    basis: Basis,
    written: OnceLock<Box<str>>,
}

/// What words rest on.
pub(in crate::core) enum Basis {
    /// What was found on the nodes.
    Evidence(Box<Evidence>),
    /// An image alone.
    Image(Arc<Shown>, fn(&Shown) -> String),
    /// Nothing: they are there.
    Words(Box<str>),
}

impl From<Basis> for Explanation {
    fn from(basis: Basis) -> Self {
        Self(Arc::new(Sentences { basis, written: OnceLock::new() }))
    }
}

impl Deref for Explanation {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0.basis {
            Basis::Evidence(evidence) => self.0.written.get_or_init(|| evidence.explain().into()),
            Basis::Image(shown, write) => self.0.written.get_or_init(|| write(shown).into()),
            Basis::Words(words) => words,
        }
    }
}

impl From<String> for Explanation {
    fn from(text: String) -> Self {
        Basis::Words(text.into()).into()
    }
}

impl From<&str> for Explanation {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Whether they say the same, as far as that can be known without writing them: what rests on the same evidence does.
impl PartialEq for Explanation {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0.basis, &other.0.basis) {
            _ if Arc::ptr_eq(&self.0, &other.0) => true,
            (Basis::Evidence(mine), Basis::Evidence(theirs)) => mine == theirs,
            _ => **self == **other,
        }
    }
}

impl Eq for Explanation {}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
