//! Many patterns asked at once, in the order in which the policy gives them.
//!
//! Enters: patterns. Leaves: whether one matches, which is the first, and what its author may have meant. It must not
//! know policies.
//!
//! A decision asks some hundred sets of tens of patterns in a few microseconds. So the patterns lie by host, then by
//! repository where that is literal; the globs of the image's own host are passed one by one, but most of them by a look
//! at the ends of the path. Ordered maps, not hash maps: so few keys are found sooner than a name is hashed.

use std::collections::BTreeMap;

use super::glob::Edges;
use super::pattern::{ImagePattern, Path, Scope};
use super::reference::ImageReference;

#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Box<[ImagePattern]>,
    /// The first `**`.
    everything: Option<usize>,
    hosts: BTreeMap<Box<str>, HostPatterns>,
}

/// Indexes of patterns, ascending.
#[derive(Clone, Debug, Default)]
struct HostPatterns {
    literals: BTreeMap<Box<str>, Vec<usize>>,
    globs: Vec<(Edges, usize)>,
}

impl PatternSet {
    pub fn new(patterns: impl IntoIterator<Item = ImagePattern>) -> Self {
        let patterns: Box<[ImagePattern]> = patterns.into_iter().collect();
        let mut everything = None;
        let mut hosts: BTreeMap<Box<str>, HostPatterns> = BTreeMap::new();
        for (index, pattern) in patterns.iter().enumerate() {
            match &pattern.scope {
                Scope::Everything => {
                    everything.get_or_insert(index);
                }
                Scope::Images { host, path, version: _ } => {
                    let of_host = hosts.entry(host.clone()).or_default();
                    match path {
                        Path::Literal(path) => of_host.literals.entry(path.clone()).or_default().push(index),
                        Path::Glob(glob) => of_host.globs.push((glob.edges, index)),
                    }
                }
            }
        }
        Self { patterns, everything, hosts }
    }

    pub fn matches(&self, reference: &ImageReference) -> bool {
        self.everything.is_some()
            || self.hosts.get(reference.registry()).is_some_and(|of_host| {
                self.first_literal(of_host, reference).is_some() || self.first_glob(of_host, reference).is_some()
            })
    }

    /// The index, in the order given, of the first pattern that matches.
    pub fn first_match(&self, reference: &ImageReference) -> Option<usize> {
        let of_host = self.hosts.get(reference.registry());
        let literal = of_host.and_then(|of_host| self.first_literal(of_host, reference));
        let glob = of_host.and_then(|of_host| self.first_glob(of_host, reference));
        [self.everything, literal, glob].into_iter().flatten().min()
    }

    /// The indexes of all patterns that match, in no order.
    pub fn all_matches(&self, reference: &ImageReference) -> impl Iterator<Item = usize> {
        let of_host = self.hosts.get(reference.registry());
        let literals = of_host.and_then(|of_host| of_host.literals.get(reference.repository())).into_iter().flatten();
        let path = Edges::of_path(reference.repository());
        let globs = of_host.into_iter().flat_map(|of_host| &of_host.globs);
        let globs = globs.filter(move |(edges, _)| edges.admit(&path)).map(|(_, index)| index);
        let by_path = literals.chain(globs).copied().filter(|index| self.matches_at(*index, reference));
        self.everything.into_iter().chain(by_path)
    }

    /// The index of the first `**`.
    pub fn any_image(&self) -> Option<usize> {
        self.everything
    }

    /// The hosts that the patterns name.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(|host| &**host)
    }

    fn first_literal(&self, of_host: &HostPatterns, reference: &ImageReference) -> Option<usize> {
        let indexes = of_host.literals.get(reference.repository())?;
        indexes.iter().copied().find(|index| self.matches_at(*index, reference))
    }

    fn first_glob(&self, of_host: &HostPatterns, reference: &ImageReference) -> Option<usize> {
        let path = Edges::of_path(reference.repository());
        let mut admitting = of_host.globs.iter().filter(|(edges, _)| edges.admit(&path));
        admitting.find(|(_, index)| self.matches_at(*index, reference)).map(|(_, index)| *index)
    }

    fn matches_at(&self, index: usize, reference: &ImageReference) -> bool {
        self.get(index).is_some_and(|pattern| pattern.matches(reference))
    }

    /// Whether it holds `**`, which alone allows image ids.
    pub fn matches_any_image(&self) -> bool {
        self.everything.is_some()
    }

    pub fn get(&self, index: usize) -> Option<&ImagePattern> {
        self.patterns.get(index)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ImagePattern> {
        self.patterns.iter()
    }

    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl FromIterator<ImagePattern> for PatternSet {
    fn from_iter<I: IntoIterator<Item = ImagePattern>>(patterns: I) -> Self {
        Self::new(patterns)
    }
}

impl<'a> IntoIterator for &'a PatternSet {
    type Item = &'a ImagePattern;
    type IntoIter = std::slice::Iter<'a, ImagePattern>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Two sets are equal if they hold the same patterns in the same order: the rest follows from these.
impl PartialEq for PatternSet {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for PatternSet {}

/// "Did you mean": the reference that one of the patterns would match if only the host were in other letters. `MyOrg/app`
/// is the classic: its capital makes a host of what was meant as an organisation of Docker Hub.
///
/// NB: only for messages. Hosts are compared exactly, as the runtime does when it looks an image up.
pub fn host_case_suggestion<'a>(
    reference: &ImageReference,
    patterns: impl IntoIterator<Item = &'a ImagePattern>,
) -> Option<ImageReference> {
    let host = reference.registry();
    let rest = reference.as_str().get(host.len()..)?;
    let lower = host.to_ascii_lowercase();
    let lowered = if lower == host { None } else { ImageReference::parse(&format!("{lower}{rest}")).ok() };
    patterns.into_iter().filter(|pattern| !pattern.is_any_image()).find_map(|pattern| {
        if let Some(lowered) = &lowered
            && pattern.matches(lowered)
        {
            return Some(lowered.clone());
        }
        let meant = pattern.registry().filter(|meant| meant.eq_ignore_ascii_case(host) && *meant != host)?;
        ImageReference::parse(&format!("{meant}{rest}")).ok().filter(|candidate| pattern.matches(candidate))
    })
}
