//! What was found, put into words when somebody reads it.
//!
//! Enters: how to write it, with all that the words rest on. Leaves: a text. It must not borrow from nodes or pods: it may be
//! read when these have changed, and says what was found then. Under a hundred policies a review has dozens of findings,
//! of which a few are shown, and most of those that are only audited never are.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

type Words = LazyLock<Box<str>, Box<dyn FnOnce() -> Box<str> + Send>>;

/// Whole sentences. Several findings share one; it is written at most once.
#[derive(Clone)]
pub struct Explanation(Arc<Words>);

impl Explanation {
    pub(in crate::core) fn new(write: impl FnOnce() -> String + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(|| write().into_boxed_str()))))
    }
}

impl Deref for Explanation {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Explanation {
    fn from(text: String) -> Self {
        Self::new(|| text)
    }
}

impl From<&str> for Explanation {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for Explanation {
    fn eq(&self, other: &Self) -> bool {
        // One text need not be written to be known to equal itself.
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
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
