//! Hides what is not the speaker's own words: names, addresses, digests, paths, pages.
//!
//! Enters: a message. Leaves: the message made plain for people, and a lower-case copy of the same length in which every
//! byte of a name is `#`. An image may be called `unauthorized/not-found:timeout-429`; in the copy it is only hashes, so no
//! row of the catalogue can match in it. Same length, because a match in the copy must be shown from the plain text.
//!
//! Two facts make this simple: no reference, digest or URL contains white space, and catalogue patterns match whole words
//! only (see `catalogue`). So what is left to hide is a name that is one whole word by itself, and those stand at few places.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// The kubelet cuts Events at 1 kB, but not waiting messages. What decides stands at the end, the image at the start.
const HEAD: usize = 4 * 1024;
const TAIL: usize = 12 * 1024;

/// What every byte of a name becomes.
const HIDDEN: &str = "#";

/// How a hidden path begins when it is that of a registry's certificates: it is no image, for no image begins with a slash.
const HIDDEN_CERTS: &str = "#certs#";

/// How a hidden URL begins when it is that of a blob: the registry may lack a layer of an image that it has.
const HIDDEN_BLOB: &str = "#blob#";

/// A message, plain and masked. The two have the same length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub plain: String,
    pub masked: String,
}

impl Text {
    pub(super) fn new(message: &str) -> Self {
        Self::of_plain(plain(message))
    }

    /// A part of a plain text by itself: what is quoted as a whole is no name in it.
    pub(super) fn part(plain: &str) -> Self {
        let end = plain.trim_end_matches([' ', '"', ']']);
        Self::of_plain(if end.contains('"') { plain } else { end }.to_owned())
    }

    fn of_plain(plain: String) -> Self {
        let masked = masked(&plain);
        Self { plain, masked }
    }
}

/// Undoes what logs, JSON and web forms did to a message, in one line.
fn plain(message: &str) -> String {
    let (head, tail) = ends(message);
    let mut text = String::with_capacity(head.len() + tail.len() + 1);
    for part in [head, tail] {
        let mut slashes = 0_usize;
        for c in part.chars() {
            match c {
                '\\' => {
                    slashes += 1;
                    continue;
                }
                // An escaped quote is a quote and an escaped line end is a blank, however often they were escaped.
                '"' | '\u{201c}' | '\u{201d}' => text.push('"'),
                'n' | 'r' | 't' if slashes > 0 => text.push(' '),
                _ => {
                    text.extend(std::iter::repeat_n('\\', slashes));
                    match c {
                        '`' | '\u{2018}' | '\u{2019}' => text.push('\''),
                        _ if c.is_whitespace() || c.is_control() => text.push(' '),
                        _ => text.push(c),
                    }
                }
            }
            slashes = 0;
        }
        text.push(' ');
    }
    for (escaped, meant) in ESCAPES {
        if text.contains(escaped) {
            text = text.replace(escaped, meant);
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const ESCAPES: &[(&str, &str)] = &[
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("&#39;", "'"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("\\u003c", "<"),
    ("\\u003e", ">"),
    ("\\u0026", "&"),
];

/// The first and last part of a message; all of it where it is short.
fn ends(message: &str) -> (&str, &str) {
    if message.len() <= HEAD + TAIL {
        return (message, "");
    }
    let head = message.get(..boundary(message, HEAD)).unwrap_or_default();
    let tail = message.get(boundary(message, message.len() - TAIL)..).unwrap_or_default();
    (head, tail)
}

/// The last place at or before this one where a character begins. (`str::floor_char_boundary` is younger than our Rust.)
pub(super) fn boundary(text: &str, place: usize) -> usize {
    (0..=place.min(text.len())).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

/// What is hidden, row after row: (what it is, pattern). Hidden is the group `name`, or `maybe` unless it is a word of the
/// language, or the whole match where there is neither; nothing where the group `keep` matched too.
const NAMES: &[(&str, &str)] = &[
    ("a page is no error text", r"<(?:!doctype|html|head|body|\?xml)\b.*(?:</html>|</error>|</body>)"),
    ("a page that was cut off", r"<(?:!doctype|html|head|body|\?xml)\b.*$"),
    ("an old kubelet's guess", r"this may be because there are no credentials on this request"),
    (
        "the artifact half of CRI-O 1.33+",
        r"[^:;, ]; (?<name>artifact err: .*?)(?:, unable to pull image or oci artifact|$)",
    ),
    ("mirrors, where the registry itself was asked too", r"(?<name>\(mirrors also failed: \[.*\]\)): "),
    (
        "the fallback to the first protocol",
        r"v2 ping attempt failed with error: .*?(?<name>v1 ping attempt failed with error: .*?)(?:\. http attempt|$)",
    ),
    ("a URL", r#"[a-z][a-z0-9+.-]*://[^\s"']*[^\s"'.,:;)\]}]"#),
    ("a digest", r"sha(?:256|512):[0-9a-f]+"),
    (
        "a quoted name; but the code in a registry's JSON is none",
        r#"(?<keep>"(?:code|message|error)": ?)?"(?<name>[^"\s]+)""#,
    ),
    ("a quoted name", r"(?:^|[\s(\[])'(?<name>[^'\s]+)'"),
    ("a tag in a list", r"\[manifests (?<name>[^\]\s]+)\]"),
    ("a tag before its repository", r"\breading manifest (?<name>\S+) in "),
    ("a repository after its tag", r"\breading manifest \S+ in (?<name>[^\s:]+):"),
    ("a tag that is gone", r"\btag:? (?<maybe>\S+) (?:was|is|not|does|has|could)\b"),
    (
        "a name after a preposition",
        r"\b(?:access denied|pull failed|manifest|configuration|config|digest) for (?<name>[^\s,]+)(?:$|[,:\s])",
    ),
    (
        "a name before its verb",
        r"\b(?:image|repository|repo|artifact|project|for) (?<maybe>[^\s,:]+):? (?:not found|does not exist|because)\b",
    ),
    (
        "a name that was not resolved",
        r#"failed to reso\w+ (?:reference|image)(?: "[^"]*")?: (?<name>[^\s:]+): not found"#,
    ),
    ("a host", r"\b(?:(?:container|docker) registry|lookup|from host) (?<maybe>[^\s:]+)(?:$|[\s:])"),
];

/// Short words of the language: what stands at a name's place and is one of these is no name.
const LANGUAGE: &[&str] = &["does", "has", "is", "name", "not", "returned", "was", "unavailable"];

/// Tokens with a slash that are words of the speaker.
const WORDS_WITH_SLASH: &[&str] =
    &["and/or", "archive/tar", "i/o", "input/output", "net/http", "read/write", "user/password", "username/password"];

static NAME_PATTERNS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| NAMES.iter().filter_map(|(_, pattern)| Regex::new(pattern).ok()).collect());

fn masked(plain: &str) -> String {
    let mut masked = plain.to_ascii_lowercase();
    for pattern in NAME_PATTERNS.iter() {
        let names: Vec<Range<usize>> = pattern
            .captures_iter(&masked)
            .filter(|found| found.name("keep").is_none())
            .filter_map(|found| match found.name("maybe") {
                Some(maybe) => Some(maybe).filter(|maybe| !LANGUAGE.contains(&maybe.as_str())),
                None => found.name("name").or_else(|| found.get(0)),
            })
            .map(|name| name.range())
            .collect();
        masked = hide(&masked, &names);
    }
    let names = compound_names(&masked);
    hide(&masked, &names)
}

/// Repositories, tags, paths, ports, media types: every word with a slash or a colon in it, without the punctuation that
/// follows it. (`hcsshim::ImportLayer` is a word.)
fn compound_names(text: &str) -> Vec<Range<usize>> {
    let mut names = Vec::new();
    let mut start = 0;
    for token in text.split(|c: char| c.is_whitespace() || "\"'()[]{},;=".contains(c)) {
        let name = token.trim_end_matches([':', '.', '!', '?']);
        let tagged = name.contains(':') && !name.contains("::");
        if (tagged || name.contains('/')) && !WORDS_WITH_SLASH.contains(&name) {
            names.push(start..start + name.len());
        }
        // The separators are all one byte long but for exotic white space, of which `plain` has left none.
        start += token.len() + 1;
    }
    names
}

/// The text with those ranges hidden. They are in order and do not overlap.
fn hide(text: &str, names: &[Range<usize>]) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut done = 0;
    for name in names {
        let (Some(before), Some(inside)) = (text.get(done..name.start), text.get(name.clone())) else { continue };
        hidden.push_str(before);
        let first = match inside {
            _ if is_blob(inside) => HIDDEN_BLOB,
            _ if inside.starts_with("/etc/") && inside.contains("/certs.d/") => HIDDEN_CERTS,
            _ => "",
        };
        hidden.push_str(first);
        hidden.push_str(&HIDDEN.repeat(inside.len() - first.len()));
        done = name.end;
    }
    hidden.push_str(text.get(done..).unwrap_or_default());
    hidden
}

/// Whether this is the URL of a blob: `.../blobs/<digest>`. Parts of a repository may be called `blobs` and `manifests`
/// too, but what is asked for stands last.
fn is_blob(name: &str) -> bool {
    let blob = name.rfind("/blobs/sha256:");
    name.contains("://") && blob.is_some() && blob > name.rfind("/manifests/")
}
