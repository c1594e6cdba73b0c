//! The grammar of image names: that of distribution/reference v0.6 with go-digest v1.0, which the kubelet, containerd and
//! Docker all use.
//!
//! Enters: text. Leaves: its parts, each valid, or the first thing wrong with it. It must not know globs: the pattern
//! parser says which byte may stand for anything.
//!
//! Written here and not taken from `oci_spec::distribution::Reference` 0.10, because that one differs where it hurts:
//! it reads the capital-letter host of `Corp/app` as an organisation of Docker Hub, which is another image; it accepts
//! Unicode in tags (`\w` of the regex crate), capital hexadecimal digits in digests and 64 bare hexadecimal digits as a
//! name, all of which the kubelet refuses; and it refuses IPv6 hosts. Its errors are one
//! "invalid reference format" for nearly everything, where we owe a remedy.

use std::borrow::Cow;

use super::error::{ReferenceError, excerpt};

pub(super) const HUB: &str = "docker.io";
const LEGACY_HUB: &str = "index.docker.io";
const OFFICIAL: &str = "library";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The algorithms that go-digest knows, with the number of their hexadecimal digits.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// A text cut at its separators: nothing is checked yet but that it holds no foreign characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub host: Option<&'a str>,
    pub path: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// The host rule of distribution/reference: the first segment is one only if a `/` follows and it cannot be a
    /// path segment of Docker Hub. A `:` after the host begins the tag, an `@` the digest; no other part can hold them.
    pub(super) fn split(text: &'a str) -> Self {
        let (host, rest) = match text.split_once('/') {
            Some((first, rest)) if looks_like_host(first) => (Some(first), rest),
            Some(_) | None => (None, text),
        };
        let (named, digest) = cut(rest, '@');
        let (path, tag) = cut(named, ':');
        Self { host, path, tag, digest }
    }

    /// The host in canonical form: Docker Hub where none is written.
    pub(super) fn canonical_host(&self) -> &'a str {
        match self.host {
            None | Some(LEGACY_HUB) => HUB,
            Some(host) => host,
        }
    }
}

fn cut(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn looks_like_host(first: &str) -> bool {
    first == "localhost" || first.bytes().any(|b| b == b'.' || b == b':' || b.is_ascii_uppercase())
}

/// The path in canonical form: Docker Hub's one-segment names live in `library/`.
pub(super) fn canonical_path<'a>(host: &str, path: &'a str) -> Cow<'a, str> {
    if host == HUB && !path.contains('/') { format!("{OFFICIAL}/{path}").into() } else { path.into() }
}

/// Refuses characters that can stand nowhere, and the mistakes that are better named as a whole than at the part where
/// they break the grammar. `wild` is one more byte that is let through (a pattern's `*`).
pub(super) fn screen(text: &str, wild: Option<u8>) -> Result<(), ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::Empty);
    }
    let is_native = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'[' | b']' | b'+')
            || Some(byte) == wild
    };
    let at = text.bytes().position(|byte| !is_native(byte));
    // All before it are of one byte, so it is where a character begins.
    let foreign = at.and_then(|at| text.get(at..)?.chars().next());
    if foreign.is_some() {
        if let Some(mark) = ["$", "{{", "<"].into_iter().find(|mark| text.contains(mark)) {
            return Err(ReferenceError::Placeholder { mark: mark.to_owned() });
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || is_invisible(c)) {
            return Err(ReferenceError::Blank);
        }
    }
    let mut colons = text.match_indices(':').map(|(at, _)| text.split_at(at));
    if let Some((scheme, _)) = colons.find(|(_, rest)| rest.starts_with("://")) {
        return Err(ReferenceError::Scheme { scheme: excerpt(&format!("{scheme}://")) });
    }
    if is_bare_id(text) {
        return Err(ReferenceError::BareId);
    }
    match foreign {
        Some(character) => Err(ReferenceError::Character { character }),
        None => Ok(()),
    }
}

/// What copying from a web page leaves behind: zero-width characters, direction marks, the byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_bare_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether containerd would take the text for an image id: a whole digest, or a shortened sha256 one.
pub(super) fn is_image_id(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let whole = ALGORITHMS.iter().any(|(name, length)| *name == algorithm && *length == digits.len());
    is_hex(digits) && (whole || algorithm == "sha256" && (1..64).contains(&digits.len()))
}

/// `host` or `host:port`; the host a domain name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn check_host(host: &str) -> Result<(), ReferenceError> {
    // A first segment such as `my_registry.local` is no domain name, yet distribution/reference lets it pass as a path
    // segment that no `docker.io/` is put before. The runtime then asks that host, so it is one.
    if is_host_and_port(host) || is_path_segment(host, None) {
        Ok(())
    } else {
        Err(ReferenceError::Host { host: excerpt(host) })
    }
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, after)) => {
                let valid = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                (valid, after)
            }
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, after) = text.split_at(end);
            (name.split('.').all(is_domain_label), after)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    host && port
}

fn is_domain_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// The whole path below the host. `wild` is a byte that may stand for any text (a pattern's `*`).
pub(super) fn check_path(path: &str, wild: Option<u8>) -> Result<(), ReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        let (repository, lower) = (excerpt(path), excerpt(&path.to_ascii_lowercase()));
        return Err(ReferenceError::UpperCase { repository, lower });
    }
    if path.split('/').any(str::is_empty) {
        return Err(ReferenceError::EmptySegment);
    }
    match path.split('/').find(|segment| !is_path_segment(segment, wild)) {
        Some(segment) => Err(ReferenceError::Segment { segment: excerpt(segment) }),
        None => Ok(()),
    }
}

/// Lower-case letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
/// A wild byte counts as a letter: what is wrong even so can match no name at all.
fn is_path_segment(segment: &str, wild: Option<u8>) -> bool {
    let mut separator: Option<(u8, usize)> = None;
    let mut seen = false;
    for byte in segment.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || Some(byte) == wild {
            let valid = match separator {
                None | Some((b'-', _)) | Some((b'_', 1 | 2)) | Some((b'.', 1)) => true,
                Some(_) => false,
            };
            if !valid {
                return false;
            }
            separator = None;
            seen = true;
        } else {
            separator = match separator {
                None if seen && matches!(byte, b'.' | b'_' | b'-') => Some((byte, 1)),
                Some((same, count)) if same == byte => Some((byte, count + 1)),
                None | Some(_) => return false,
            };
        }
    }
    seen && separator.is_none()
}

/// NB: the `library/` of Docker Hub counts, the host does not, but for one that is only a host because we say so.
pub(super) fn check_length(host: &str, canonical_path: &str, wild: Option<u8>) -> Result<(), ReferenceError> {
    // Nearly always: whatever counts, it is no more than this.
    if host.len() + 1 + canonical_path.len() <= MAX_NAME {
        return Ok(());
    }
    let path = canonical_path.bytes().filter(|b| Some(*b) != wild).count();
    let length = if is_host_and_port(host) { path } else { host.len() + 1 + path };
    if length > MAX_NAME { Err(ReferenceError::NameTooLong { length }) } else { Ok(()) }
}

pub(super) fn check_tag(tag: &str, wild: Option<u8>) -> Result<(), ReferenceError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || Some(byte) == wild;
    let Some(first) = tag.bytes().next() else { return Err(ReferenceError::EmptyTag) };
    if !is_word(first) || !tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-') {
        return Err(ReferenceError::Tag { tag: excerpt(tag) });
    }
    let length = tag.bytes().filter(|b| Some(*b) != wild).count();
    if length > MAX_TAG { Err(ReferenceError::TagTooLong { length }) } else { Ok(()) }
}

pub(super) fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let Some((algorithm, digits)) = digest.split_once(':') else {
        return Err(ReferenceError::DigestForm { digest: excerpt(digest) });
    };
    let Some((algorithm, expected)) = ALGORITHMS.into_iter().find(|(name, _)| *name == algorithm) else {
        return Err(ReferenceError::DigestAlgorithm { algorithm: excerpt(algorithm) });
    };
    if digits.len() != expected {
        return Err(ReferenceError::DigestLength { algorithm, expected, found: digits.len() });
    }
    if is_hex(digits) { Ok(()) } else { Err(ReferenceError::DigestDigits) }
}
