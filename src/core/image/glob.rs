//! Globs over paths and tags: `*` within one segment, `**` for any number of segments.
//!
//! Enters: text whose syntax the pattern parser has checked. Leaves: a matcher. It must not know references.
//!
//! Not `globset`: with `*` as the only wildcard a matcher is a few comparisons of literal pieces, while a compiled regex
//! for each of some thousand patterns costs memory and start-up, and allows more syntax than the policy does. Neither
//! loop below backtracks over more than the last star, so no pattern is slow.

/// A text with any number of `*`, each of which stands for any run of characters but `/`.
#[derive(Clone, Debug)]
pub(super) enum Glob {
    Literal(Box<str>),
    Stars { first: Box<str>, middle: Box<[Box<str>]>, last: Box<str> },
}

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        let mut pieces = text.split('*').map(Box::<str>::from);
        let first = pieces.next().unwrap_or_default();
        match pieces.next_back() {
            None => Self::Literal(first),
            Some(last) => Self::Stars { first, middle: pieces.filter(|piece| !piece.is_empty()).collect(), last },
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Stars { first, middle, last } => {
                let inner = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
                // The leftmost place for each piece leaves most to the others, so there is nothing to go back for.
                inner.is_some_and(|inner| {
                    let end = middle.iter().try_fold(inner, |rest, piece| Some(rest.split_once(&**piece)?.1));
                    end.is_some()
                })
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Segment {
    /// `**`
    AnyNumber,
    One(Glob),
}

/// A path with globs.
#[derive(Clone, Debug)]
pub(super) struct PathGlob {
    pub(super) edges: Edges,
    segments: Box<[Segment]>,
}

impl PathGlob {
    pub(super) fn new(path: &str) -> Self {
        let segments = path
            .split('/')
            .map(|segment| if segment == "**" { Segment::AnyNumber } else { Segment::One(Glob::new(segment)) })
            .collect();
        Self { edges: Edges::of_glob(path), segments }
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let mut pattern = &*self.segments;
        let mut rest = Segments(Some(path));
        // After the last `**`: what must follow it, and where in the path that was last tried.
        let mut retry = None;
        loop {
            let matched = match pattern.split_first() {
                Some((Segment::AnyNumber, [])) => return true,
                Some((Segment::AnyNumber, tail)) => {
                    retry = Some((tail, rest.clone()));
                    pattern = tail;
                    continue;
                }
                Some((Segment::One(glob), tail)) => {
                    pattern = tail;
                    rest.next().is_some_and(|segment| glob.matches(segment))
                }
                None if rest.next().is_none() => return true,
                None => false,
            };
            if !matched {
                // Let the last `**` take one segment more.
                let Some((tail, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                pattern = tail;
                rest = from.clone();
            }
        }
    }
}

/// `split('/')`, but byte by byte: segments are short, and the searcher of the standard library takes longer to set out
/// than to arrive. A match costs some fifty nanoseconds so, and a decision asks for hundreds.
#[derive(Clone)]
struct Segments<'a>(Option<&'a str>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0?;
        match rest.bytes().position(|byte| byte == b'/') {
            Some(end) => {
                self.0 = rest.get(end + 1..);
                rest.get(..end)
            }
            None => self.0.take(),
        }
    }
}

/// The first and the last 16 bytes of a path, as far as they are literal: what nearly every pattern of a set is refused
/// by, in two comparisons and without a look at the pattern itself. Thousands of patterns are passed that way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges {
    head: Edge,
    tail: Edge,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    bytes: u128,
    /// Ones where a byte is known.
    known: u128,
}

impl Edges {
    pub(super) fn of_path(path: &str) -> Self {
        Self { head: Edge::new(path.bytes()), tail: Edge::new(path.bytes().rev()) }
    }

    fn of_glob(path: &str) -> Self {
        let (before, from_first_star) = path.split_at(path.find('*').unwrap_or(path.len()));
        let (up_to_last_star, after) = path.split_at(path.rfind('*').map_or(0, |star| star + 1));
        // `a/**` also matches `a`: the slash beside a `**` is not sure to be there.
        let head = if from_first_star.starts_with("**") { before.trim_end_matches('/') } else { before };
        let tail = if up_to_last_star.ends_with("**") { after.trim_start_matches('/') } else { after };
        Self { head: Edge::new(head.bytes()), tail: Edge::new(tail.bytes().rev()) }
    }

    /// Whether a path with these edges, which are known in full, can match.
    pub(super) fn admit(&self, path: &Self) -> bool {
        self.head.admits(path.head) && self.tail.admits(path.tail)
    }
}

impl Edge {
    fn new(bytes: impl Iterator<Item = u8>) -> Self {
        let (mut packed, mut known) = ([0; 16], [0; 16]);
        for ((packed, known), byte) in packed.iter_mut().zip(&mut known).zip(bytes) {
            (*packed, *known) = (byte, u8::MAX);
        }
        Self { bytes: u128::from_le_bytes(packed), known: u128::from_le_bytes(known) }
    }

    fn admits(self, path: Self) -> bool {
        (self.bytes ^ path.bytes) & self.known == 0
    }
}
