//! Is it a pull failure at all, and which part of the text says why?
//!
//! Enters: [`Words`] and the plain text. Leaves: a [`Symptom`]. The reason decides where it is the reason of pulls or of
//! something else only; `Failed`, `FailedSync` and `BackOff` are shared with everything, so there the text decides.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::mask::Text;

/// Whose words the text is, hence which class it has when no row of the catalogue says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    Pull,
    NeverPull,
    InvalidName,
    Inspect,
    Signature,
    Registry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Symptom {
    Other,
    /// A pull failure; the cause is in this part of the text, which may be empty.
    Pull {
        teller: Teller,
        cause: Range<usize>,
    },
}

/// Reasons that only pulls have. Kubelets of all ages; the last ones are those of versions before 1.2.
const PULL_REASONS: &[(&str, Teller)] = &[
    ("errimagepull", Teller::Pull),
    ("imagepullbackoff", Teller::Pull),
    ("errimageneverpull", Teller::NeverPull),
    ("invalidimagename", Teller::InvalidName),
    ("errinvalidimagename", Teller::InvalidName),
    ("imageinspecterror", Teller::Inspect),
    ("errimageinspect", Teller::Inspect),
    ("inspectfailed", Teller::Inspect),
    ("registryunavailable", Teller::Registry),
    ("signaturevalidationfailed", Teller::Signature),
    ("failedtopullimage", Teller::Pull),
    ("failedpullimage", Teller::Pull),
    ("pullimageerror", Teller::Pull),
];

/// Reasons that anything may have: the text decides. Every other reason is no pull failure.
const SHARED_REASONS: &[&str] = &["", "failed", "failedsync", "backoff", "error", "warning", "pending", "waiting"];

/// How the text of a pull failure begins, once `spec.containers{name}: ` and `Error: ` are off: (pattern, teller).
const OPENINGS: &[(&str, Teller)] = &[
    (r#"^failed to pull image "[^"]*":? ?"#, Teller::Pull),
    (r#"^failed to pull image '[^']*':? ?"#, Teller::Pull),
    (r#"^back-off pulling image "[^"]*"(?:: errimagepull)?:? ?"#, Teller::Pull),
    (r#"^failed to inspect image "[^"]*":? ?"#, Teller::Inspect),
    (r#"^failed to apply default image tag "[^"]*":? ?"#, Teller::InvalidName),
    (r#"^container image "[^"]*" is not present with pull policy of never"#, Teller::NeverPull),
    (r"^image pull failed for \S+ because the registry is (?:temporarily )?unavailable\.?:? ?", Teller::Registry),
    (r"^image pull failed for \S+ because the signature validation failed:? ?", Teller::Signature),
    (r"^(?:errimagepull|imagepullbackoff|pullimageerror)(?:$|: ?)", Teller::Pull),
    (r"^errimageneverpull(?:$|: ?)", Teller::NeverPull),
    (r"^(?:err)?invalidimagename(?:$|: ?)", Teller::InvalidName),
    (r"^imageinspecterror(?:$|: ?)", Teller::Inspect),
    (r"^registryunavailable(?:$|: ?)", Teller::Registry),
    (r"^signaturevalidationfailed(?:$|: ?)", Teller::Signature),
];

/// What may stand before the opening.
const PREFIXES: &[&str] = &[
    r"^\(combined from similar events\): ?",
    r"^spec\.\w+\{[^}]*\}: ?",
    r"^error syncing pod(?: [^,]*)?, skipping: ",
    r"^error: ",
    r"^\[?failed to 'startcontainer' for '[^']*' with ",
    r#"^\[?failed to "startcontainer" for "[^"]*" with "#,
];

/// Words that only pulls use, for texts that begin in a way nobody has seen. Searched where names are hidden.
const MARKS: &str = r"(?:image pull failed for|failed to pull (?:and unpack )?image|pull access denied|manifest unknown|failed to resolve (?:reference|image)|error pulling image|while pulling image|initializing source #|reading manifest #|pinging (?:container|docker) registry|toomanyrequests|pull qps exceeded|unable to pull image|error reading manifest)";

/// A sandbox needs an image too, but that is the node's trouble and no pod can mend it. And a container that cannot be
/// made of an image has one.
const SANDBOX: &str = r"(?:failed to (?:create|generate|reserve|start|run) (?:(?:docker|containerd) )?(?:container|task)|sandbox image|createpodsandbox|create pod sandbox|sandbox for pod|pod infra container|infra image|setupnetwork)";

/// What kubelets before 1.6 called the sandbox: a container named POD.
const SANDBOX_CONTAINER: &str = "failed to \"startcontainer\" for \"pod\" with";

static OPENING_PATTERNS: LazyLock<Vec<(Regex, Teller)>> = LazyLock::new(|| {
    OPENINGS.iter().filter_map(|(pattern, teller)| Some((Regex::new(pattern).ok()?, *teller))).collect()
});
static PREFIX_PATTERNS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| PREFIXES.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect());
static MARK_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(MARKS).ok());
static SANDBOX_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(SANDBOX).ok());
static STARTS_WITH: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"failed to "?startcontainer"? for "[^"]*" with (\w+)"#).ok());

/// Judges the reason first, then the text.
pub(super) fn symptom(reason: &str, text: &Text) -> Symptom {
    let lower = text.plain.to_ascii_lowercase();
    let reason = reason.trim().to_ascii_lowercase();
    if let Some((_, teller)) = PULL_REASONS.iter().find(|(name, _)| *name == reason) {
        let (start, opened) = opening(&lower);
        return Symptom::Pull { teller: stronger(*teller, opened), cause: start..lower.len() };
    }
    if !SHARED_REASONS.contains(&reason.as_str()) {
        return Symptom::Other;
    }
    if lower.contains(SANDBOX_CONTAINER) {
        return Symptom::Other;
    }
    // One pod, several containers, each with its own failure: the first pull failure that has a cause.
    let start = first_pull(&lower);
    let rest = lower.get(start..).unwrap_or_default();
    if let (opened, Some(teller)) = opening(rest) {
        let end = rest.find("\", failed to \"startcontainer\"").map_or(lower.len(), |at| start + at);
        return Symptom::Pull { teller, cause: (start + opened).min(end)..end };
    }
    let says = |pattern: &Option<Regex>| pattern.as_ref().is_some_and(|pattern| pattern.is_match(&text.masked));
    if says(&MARK_PATTERN) && !says(&SANDBOX_PATTERN) {
        return Symptom::Pull { teller: Teller::Pull, cause: 0..lower.len() };
    }
    Symptom::Other
}

/// Where in a list of failed containers the first pull failure begins, else 0.
fn first_pull(lower: &str) -> usize {
    let Some(pattern) = STARTS_WITH.as_ref() else { return 0 };
    let mut bare = None;
    for found in pattern.captures_iter(lower) {
        let (Some(whole), Some(reason)) = (found.get(0), found.get(1)) else { continue };
        match PULL_REASONS.iter().find(|(name, _)| *name == reason.as_str()) {
            Some((_, Teller::Pull)) if reason.as_str() == "imagepullbackoff" => {
                bare.get_or_insert(whole.start());
            }
            Some(_) => return whole.start(),
            None => {}
        }
    }
    bare.unwrap_or(0)
}

/// How much of the text is an opening, and whose. Openings nest: `ImagePullBackOff: "Back-off pulling image ..."`.
fn opening(lower: &str) -> (usize, Option<Teller>) {
    let mut start = 0;
    let mut teller = None;
    loop {
        let rest = lower.get(start..).unwrap_or_default();
        let skipped = PREFIX_PATTERNS.iter().find_map(|pattern| pattern.find(rest)).map(|found| found.end());
        let opened = OPENING_PATTERNS
            .iter()
            .find_map(|(pattern, teller)| pattern.find(rest).map(|found| (found.end(), *teller)));
        match (opened, skipped) {
            (Some((length, who)), _) if length > 0 => {
                start += length;
                teller = Some(teller.map_or(who, |before| stronger(before, Some(who))));
                // What a reason carries in a pod worker's text is quoted.
                if lower.get(start..).is_some_and(|rest| rest.starts_with('"')) {
                    start += 1;
                }
            }
            (_, Some(length)) if length > 0 => start += length,
            _ => return (start, teller),
        }
    }
}

/// The more particular of two tellers, the inner one where both are: that it was a pull says least.
fn stronger(outer: Teller, inner: Option<Teller>) -> Teller {
    match inner {
        None | Some(Teller::Pull) => outer,
        Some(particular) => particular,
    }
}
