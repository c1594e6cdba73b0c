//! One image pattern of a policy: a reference with globs, made canonical by the same rules as references.
//!
//! Enters: text of `allowedImages`, `preloadedImages`, `remedies[].image`. Leaves: a matcher, or an error that names the
//! pattern and the fix. It must not know what a match means.
//!
//! * No host means `docker.io`, and one path segment there `library/`: `optio-*` is `docker.io/library/optio-*`.
//!   That holds for globs too: `*/app` and `**/app` have no host, so they are on Docker Hub, not on every registry. This
//!   reading allows less than its author may have meant, never more. `docker.io/**` is all of Docker Hub.
//! * `**` alone is every image; with a tag or digest it is refused, for it would look like every registry and be one.
//! * Nothing matches by prefix, and everything that the pattern states must hold.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::error::{PatternError, PatternProblem, ReferenceError, excerpt};
use super::glob::{Glob, PathGlob};
use super::grammar::{self, Parts};
use super::reference::ImageReference;

const STAR: Option<u8> = Some(b'*');
const EVERYTHING: &str = "**";

/// A pattern. Equality and hash are those of the canonical text, so `nginx` equals `docker.io/library/nginx`.
#[derive(Clone, Debug)]
pub struct ImagePattern {
    text: Box<str>,
    canonical: Box<str>,
    pub(super) scope: Scope,
}

#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// `**`
    Everything,
    Images {
        host: Box<str>,
        path: Path,
        version: Version,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Path {
    Literal(Box<str>),
    Glob(PathGlob),
}

/// What is demanded of tag and digest.
#[derive(Clone, Debug)]
pub(super) struct Version {
    tag: Option<Glob>,
    digest: Option<Box<str>>,
}

impl ImagePattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::compile(text).map_err(|problem| PatternError { pattern: excerpt(text), problem })
    }

    fn compile(text: &str) -> Result<Self, PatternProblem> {
        if text == EVERYTHING {
            return Ok(Self { text: text.into(), canonical: text.into(), scope: Scope::Everything });
        }
        grammar::screen(text, STAR).map_err(name_unsupported_glob)?;
        if grammar::is_image_id(text) {
            return Err(PatternProblem::ImageId);
        }
        let parts = Parts::split(text);
        if parts.host.is_none() && parts.path == EVERYTHING {
            return Err(PatternProblem::QualifiedEverything { pattern: excerpt(text) });
        }
        let host = parts.canonical_host();
        check_host(host)?;
        check_path(parts.path)?;
        let path = if parts.path == EVERYTHING { EVERYTHING.into() } else { grammar::canonical_path(host, parts.path) };
        grammar::check_length(host, &path, STAR)?;
        let version = Version::compile(parts)?;
        let canonical = format!("{host}/{path}{}", text_of_version(parts));
        let path = if path.contains('*') { Path::Glob(PathGlob::new(&path)) } else { Path::Literal(Box::from(&*path)) };
        let scope = Scope::Images { host: host.into(), path, version };
        Ok(Self { text: text.into(), canonical: canonical.into(), scope })
    }

    pub fn matches(&self, reference: &ImageReference) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Images { host, path, version } => {
                **host == *reference.registry() && path.matches(reference.repository()) && version.matches(reference)
            }
        }
    }

    /// The pattern as its author wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The canonical text, which is also what `Display` writes.
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// The one registry host that it is about; `None` for `**`.
    pub fn registry(&self) -> Option<&str> {
        match &self.scope {
            Scope::Everything => None,
            Scope::Images { host, .. } => Some(host),
        }
    }

    /// Whether it is `**`, which alone matches image ids too.
    pub fn is_any_image(&self) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Images { .. } => false,
        }
    }
}

impl Path {
    fn matches(&self, repository: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *repository,
            Self::Glob(glob) => glob.matches(repository),
        }
    }
}

impl Version {
    fn compile(parts: Parts<'_>) -> Result<Self, PatternProblem> {
        if let Some(tag) = parts.tag {
            if tag.contains(EVERYTHING) {
                return Err(PatternProblem::DoubleStarInTag);
            }
            grammar::check_tag(tag, STAR)?;
        }
        if let Some(digest) = parts.digest {
            if digest.contains('*') {
                return Err(PatternProblem::GlobInDigest);
            }
            grammar::check_digest(digest)?;
        }
        Ok(Self { tag: parts.tag.map(Glob::new), digest: parts.digest.map(Box::from) })
    }

    pub(super) fn matches(&self, reference: &ImageReference) -> bool {
        let tag = self.tag.as_ref().is_none_or(|glob| reference.tag().is_some_and(|tag| glob.matches(tag)));
        let digest = self.digest.as_deref().is_none_or(|digest| reference.digest() == Some(digest));
        tag && digest
    }
}

fn text_of_version(parts: Parts<'_>) -> String {
    let tag = parts.tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = parts.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    tag + &digest
}

/// Other tools' globs get an error of their own, for they are meant as such.
fn name_unsupported_glob(error: ReferenceError) -> PatternProblem {
    match error {
        ReferenceError::Character { character } if "?{}!^\\,|()~".contains(character) => {
            PatternProblem::UnsupportedGlob { character }
        }
        other => other.into(),
    }
}

fn check_host(host: &str) -> Result<(), PatternProblem> {
    if host.contains('*') {
        return Err(PatternProblem::GlobInHost { host: excerpt(host) });
    }
    Ok(grammar::check_host(host)?)
}

fn check_path(path: &str) -> Result<(), PatternProblem> {
    // Brackets belong to IPv6 hosts; anywhere else somebody means a character class.
    if let Some(character) = path.chars().find(|c| matches!(c, '[' | ']')) {
        return Err(PatternProblem::UnsupportedGlob { character });
    }
    if let Some(segment) = path.split('/').find(|segment| *segment != EVERYTHING && segment.contains(EVERYTHING)) {
        return Err(PatternProblem::DoubleStarInSegment { segment: excerpt(segment) });
    }
    Ok(grammar::check_path(path, STAR)?)
}

impl PartialEq for ImagePattern {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for ImagePattern {}

impl Hash for ImagePattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.canonical)
    }
}

impl FromStr for ImagePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for ImagePattern {
    type Error = PatternError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}
