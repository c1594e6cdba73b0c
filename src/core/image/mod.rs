//! Image names as the container runtime resolves them, and the patterns that operators write about them.
//!
//! Enters: text, out of pods, node statuses and policies. Leaves: values in canonical form that cannot be wrong, and
//! errors that say how to mend the text. It must not know who asks: the webhook, the inventory and the controller share
//! this one parser, for two readings of one name would be a hole in the allowlist.

mod error;
mod glob;
mod grammar;
mod pattern;
mod reference;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use error::{PatternError, PatternProblem, ReferenceError};
pub use pattern::ImagePattern;
pub use reference::ImageReference;
pub use set::{PatternSet, host_case_suggestion};

/// What the `image` field of a container can name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageName {
    Reference(ImageReference),
    /// An image id, `sha256:<hex>`, as written. Node lists hold no ids, so its presence is never known; only the pattern
    /// `**` allows it.
    ///
    /// NB: for distribution/reference such a text is the tag `<hex>` of `docker.io/library/sha256`, and that is what
    /// containerd would *pull*. But it looks the image up by id first, and by a shortened id last
    /// (`LocalResolve` in containerd's `internal/cri/server/images/service.go`).
    Id(String),
}

impl ImageName {
    /// The reading of the kubelet and the runtime: what is refused here, no kubelet would ever run. So 64 bare
    /// hexadecimal digits are an error and not an id: the kubelet refuses them before the runtime is asked.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if grammar::is_image_id(text) {
            Ok(Self::Id(text.to_owned()))
        } else {
            ImageReference::parse(text).map(Self::Reference)
        }
    }

    pub fn reference(&self) -> Option<&ImageReference> {
        match self {
            Self::Reference(reference) => Some(reference),
            Self::Id(_) => None,
        }
    }
}

impl From<ImageReference> for ImageName {
    fn from(reference: ImageReference) -> Self {
        Self::Reference(reference)
    }
}

impl FromStr for ImageName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for ImageName {
    type Error = ReferenceError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(f),
            Self::Id(id) => f.write_str(id),
        }
    }
}
