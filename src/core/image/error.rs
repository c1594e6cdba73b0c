//! What can be wrong with a reference or a pattern, and how to mend it.
//!
//! Enters: the offending piece of text. Leaves: messages for the person who wrote it. They are shown in denials, Events
//! (1 kB at most) and policy conditions, so a piece is cut to a length that is still recognised.

use thiserror::Error;

/// Why a text is no image reference. The messages continue a sentence that has already shown the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    #[error("it is empty: name an image, such as `nginx:1.29`")]
    Empty,
    #[error("it holds a blank, a line break or an invisible character: remove it")]
    Blank,
    #[error("it begins with `{scheme}`: an image reference has no scheme, remove it")]
    Scheme { scheme: String },
    #[error("it holds `{mark}`: a template or variable was not filled in")]
    Placeholder { mark: String },
    #[error("it holds `{character}`, which no image reference can hold")]
    Character { character: char },
    #[error(
        "64 hexadecimal digits alone are no image name: write `repository@sha256:<digits>`, or `sha256:<digits>` for an image id"
    )]
    BareId,
    #[error("it is an image id, which names no repository: write `repository:tag` or `repository@sha256:<digits>`")]
    ImageId,
    #[error(
        "`{host}` is no registry host: a part with a dot, a colon or a capital letter before the first `/` must be `host` or `host:port`"
    )]
    Host { host: String },
    #[error("it has an empty path segment: remove the surplus `/`, or fill in what was to stand there")]
    EmptySegment,
    #[error("the repository `{repository}` has capital letters: write `{lower}`")]
    UpperCase { repository: String, lower: String },
    #[error(
        "the path segment `{segment}` must be lower-case letters and digits, with single `.`, `_`, `__` or dashes between them"
    )]
    Segment { segment: String },
    #[error("the repository is {length} characters long, at most 255 are allowed")]
    NameTooLong { length: usize },
    #[error("nothing follows the `:`: give a tag, or remove the `:`")]
    EmptyTag,
    #[error("the tag is {length} characters long, at most 128 are allowed")]
    TagTooLong { length: usize },
    #[error("the tag `{tag}` must be letters, digits, `_`, `.` and `-`, and not begin with `.` or `-`")]
    Tag { tag: String },
    #[error("the digest `{digest}` must be written `sha256:` and 64 hexadecimal digits")]
    DigestForm { digest: String },
    #[error("the digest algorithm `{algorithm}` is unknown: use sha256, sha384 or sha512")]
    DigestAlgorithm { algorithm: String },
    #[error("a {algorithm} digest has {expected} hexadecimal digits, this one has {found}")]
    DigestLength { algorithm: &'static str, expected: usize, found: usize },
    #[error("the digits of a digest are 0-9 and lower-case a-f")]
    DigestDigits,
}

/// Why a text is no image pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("image pattern `{pattern}`: {problem}")]
pub struct PatternError {
    pub pattern: String,
    #[source]
    pub problem: PatternProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum PatternProblem {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(
        "the registry host `{host}` holds a `*`: hosts are compared exactly, write one pattern for each host (only `**` alone is every image)"
    )]
    GlobInHost { host: String },
    #[error(
        "`{character}` is no glob here: use `*` (within one path segment or the tag) or `**` (any number of segments), and one pattern for each alternative"
    )]
    UnsupportedGlob { character: char },
    #[error("`**` must be a whole path segment, but stands in `{segment}`: write `*` there, or `/**/`")]
    DoubleStarInSegment { segment: String },
    #[error("a tag has no segments: write `*` in place of `**`")]
    DoubleStarInTag,
    #[error(
        "`**` alone is every image and takes no tag or digest: put a registry host before it, such as `docker.io/{pattern}`"
    )]
    QualifiedEverything { pattern: String },
    #[error("a digest is compared exactly: write it in full, or leave it out to allow any")]
    GlobInDigest,
    #[error("an image id matches no pattern but `**`: write the repository")]
    ImageId,
}

/// A piece of somebody's text, at a length fit for a message.
pub(super) fn excerpt(piece: &str) -> String {
    const SHOWN: usize = 80;
    match piece.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", piece.get(..end).unwrap_or_default()),
        None => piece.to_owned(),
    }
}
