//! The policies that match, those together that have the same to say.
//!
//! Enters: the matching policies, and what the patterns of all policies say of each image. Leaves: blocs: a hundred
//! policies are judged by as many of them as differ, and in a real cluster few do. It must not know what they say.

use super::policies::{Certainty, Entry, Said};

/// A policy that matches.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Member<'a> {
    pub entry: &'a Entry,
    pub certainty: Certainty,
    pub bloc: usize,
}

#[derive(Clone, Debug)]
pub(in crate::core) struct Blocs<'a> {
    /// In the order of their names.
    pub members: Vec<Member<'a>>,
    /// More than any bloc's number.
    pub bound: usize,
}

/// How many members a bloc has, and how many of them a set.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: usize,
    within: usize,
    /// The bloc of those within, once it has a number.
    twin: Option<usize>,
}

impl<'a> Blocs<'a> {
    /// `kinds`: how many kinds of policies there are. `said`: of each image, in any order.
    pub fn new<'s>(
        matching: impl Iterator<Item = (&'a Entry, Certainty)>,
        kinds: usize,
        said: impl IntoIterator<Item = &'s Said>,
    ) -> Self {
        let members = matching.map(|(entry, certainty)| {
            let bloc = match certainty {
                Certainty::Certain => entry.kind,
                Certainty::Possible => kinds + entry.kind,
            };
            Member { entry, certainty, bloc }
        });
        let mut blocs = Self { members: members.collect(), bound: 2 * kinds };
        for said in said {
            blocs.split(|place| said.allowed.contains(place));
            blocs.split(|place| said.preloaded.contains(place));
        }
        blocs
    }

    /// Of each bloc, those that are within become a bloc of their own.
    fn split(&mut self, is_within: impl Fn(u32) -> bool) {
        let within = self.members.iter().filter(|member| is_within(member.entry.place)).count();
        if within == 0 || within == self.members.len() {
            return;
        }
        let mut tallies = vec![Tally::default(); self.bound];
        for member in &self.members {
            if let Some(tally) = tallies.get_mut(member.bloc) {
                tally.all += 1;
                tally.within += usize::from(is_within(member.entry.place));
            }
        }
        for member in self.members.iter_mut().filter(|member| is_within(member.entry.place)) {
            if let Some(tally) = tallies.get_mut(member.bloc).filter(|tally| tally.within < tally.all) {
                member.bloc = *tally.twin.get_or_insert_with(|| {
                    self.bound += 1;
                    self.bound - 1
                });
            }
        }
    }
}
