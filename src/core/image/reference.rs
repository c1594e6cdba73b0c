//! One image reference, as the container runtime resolves it: `nginx` is `docker.io/library/nginx:latest`.
//!
//! Enters: text as people write it. Leaves: the canonical form and its parts. It must not know nodes, registries or
//! policies, nor globs.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::str::FromStr;

use super::error::ReferenceError;
use super::grammar::{self, Parts};

const DEFAULT_TAG: &str = "latest";

/// A reference in canonical form, which cannot be wrong.
///
/// Equality, order and hash are those of the canonical text, so `nginx` equals `docker.io/library/nginx:latest`. Whether
/// a host was written is kept beside it, for the runtimes that resolve short names in their own way: of two equal
/// references one may have it and the other not.
#[derive(Clone, Debug)]
pub struct ImageReference {
    /// `registry/repository[:tag][@digest]`; the numbers are offsets in it.
    canonical: Box<str>,
    registry_end: usize,
    name_end: usize,
    tag_end: usize,
    /// Where the path begins as it was written, without host and without a `library/` that was added.
    short_start: usize,
    explicit_host: bool,
    /// Only where it is no piece of the canonical text: with a tag and a digest.
    lookup: Option<Box<str>>,
}

impl ImageReference {
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        grammar::screen(text, None)?;
        if grammar::is_image_id(text) {
            return Err(ReferenceError::ImageId);
        }
        let parts = Parts::split(text);
        let host = parts.canonical_host();
        let path = grammar::canonical_path(host, parts.path);
        grammar::check_host(host)?;
        grammar::check_path(parts.path, None)?;
        grammar::check_length(host, &path, None)?;
        if let Some(tag) = parts.tag {
            grammar::check_tag(tag, None)?;
        }
        if let Some(digest) = parts.digest {
            grammar::check_digest(digest)?;
        }
        Ok(Self::assemble(parts, host, &path))
    }

    fn assemble(parts: Parts<'_>, host: &str, path: &str) -> Self {
        let room = parts.tag.unwrap_or(DEFAULT_TAG).len() + parts.digest.map_or(0, str::len) + 3;
        let mut canonical = String::with_capacity(host.len() + path.len() + room);
        canonical.push_str(host);
        canonical.push('/');
        canonical.push_str(path);
        let name_end = canonical.len();
        let tag = match (parts.tag, parts.digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        if let Some(tag) = tag {
            canonical.push(':');
            canonical.push_str(tag);
        }
        let tag_end = canonical.len();
        let mut lookup = None;
        if let Some(digest) = parts.digest {
            canonical.push('@');
            canonical.push_str(digest);
            if tag.is_some() {
                lookup = Some(format!("{host}/{path}@{digest}").into_boxed_str());
            }
        }
        let explicit_host = parts.host.is_some();
        let written = if explicit_host { path.len() } else { parts.path.len() };
        Self {
            canonical: canonical.into_boxed_str(),
            registry_end: host.len(),
            name_end,
            tag_end,
            short_start: name_end - written,
            explicit_host,
            lookup,
        }
    }

    /// The host, with its port if it has one; `docker.io` where none was written.
    pub fn registry(&self) -> &str {
        self.piece(0..self.registry_end)
    }

    /// The path only: `library/nginx`.
    pub fn repository(&self) -> &str {
        self.piece(self.registry_end + 1..self.name_end)
    }

    /// The tag as written, also beside a digest; `latest` where neither was written.
    pub fn tag(&self) -> Option<&str> {
        (self.name_end < self.tag_end).then(|| self.piece(self.name_end + 1..self.tag_end))
    }

    pub fn digest(&self) -> Option<&str> {
        let end = self.canonical.len();
        (self.tag_end < end).then(|| self.piece(self.tag_end + 1..end))
    }

    /// Registry and repository: `docker.io/library/nginx`.
    pub fn name(&self) -> &str {
        self.piece(0..self.name_end)
    }

    /// The name by which the runtime looks the image up, and by which a node lists it: by tag, or `repository@digest`.
    /// With a tag and a digest the digest counts.
    pub fn lookup(&self) -> &str {
        self.lookup.as_deref().unwrap_or(&self.canonical)
    }

    /// The canonical text, which is also what `Display` writes.
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// Whether the text named a registry. Without one it is a short name, which CRI-O resolves by its own configuration.
    pub fn has_explicit_host(&self) -> bool {
        self.explicit_host
    }

    /// The end of [`lookup`](Self::lookup) that does not depend on how a short name is resolved: the path as written, and
    /// the tag or digest: `nginx:latest`, `myorg/app:1`. With an explicit host it is the repository with tag or digest.
    pub fn short_path(&self) -> &str {
        self.lookup().get(self.short_start..).unwrap_or_default()
    }

    /// The offsets are made with the text and lie on its ASCII separators: the fallback is never taken.
    fn piece(&self, range: Range<usize>) -> &str {
        self.canonical.get(range).unwrap_or_default()
    }
}

impl PartialEq for ImageReference {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for ImageReference {}

impl Hash for ImageReference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl PartialOrd for ImageReference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ImageReference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical.cmp(&other.canonical)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.canonical)
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for ImageReference {
    type Error = ReferenceError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}
