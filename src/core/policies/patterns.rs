//! The patterns of all policies, asked at once.
//!
//! Enters: policies, and an image. Leaves: which of them allow it, and to which it is preloaded, as sets of their places.
//! A hundred allowlists share most of their patterns: each different one is tried once, instead of a hundred sets one
//! after the other.

use std::collections::HashMap;

use super::Entry;
use crate::core::image::{ImageName, ImagePattern, ImageReference, PatternSet};
use crate::core::inventory::bits::Bits;

/// What all policies say of one image.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Said {
    pub allowed: Bits,
    pub preloaded: Bits,
}

#[derive(Clone, Debug, Default)]
pub(in crate::core) struct PolicyPatterns {
    allowed: Merged,
    /// The policies without an allowlist.
    unlisted: Bits,
    preloaded: Merged,
}

impl PolicyPatterns {
    pub fn new<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Self {
        let listed = |entry: &'a Entry| Some((entry.place, entry.policy.allowed_images.as_ref()?));
        let unlisted = entries.clone().filter(|entry| entry.policy.allowed_images.is_none());
        Self {
            allowed: Merged::new(entries.clone().filter_map(listed)),
            unlisted: unlisted.map(|entry| entry.place).collect(),
            preloaded: Merged::new(entries.map(|entry| (entry.place, &entry.policy.preloaded_images))),
        }
    }

    /// NB: an image id names no repository that a pattern could match. `**` alone allows it, and nothing preloads it.
    pub fn of(&self, name: &ImageName) -> Said {
        let mut said = Said { allowed: self.allowing(name.reference()), preloaded: Bits::default() };
        match name {
            ImageName::Reference(reference) => self.preloaded.add_holders(reference, &mut said.preloaded),
            ImageName::Id(_) => self.allowed.add_holders_of_any_image(&mut said.allowed),
        }
        said
    }

    /// `None`: what only a policy without an allowlist can allow.
    pub fn allowing(&self, reference: Option<&ImageReference>) -> Bits {
        let mut allowed = self.unlisted.clone();
        if let Some(reference) = reference {
            self.allowed.add_holders(reference, &mut allowed);
        }
        allowed
    }

    /// Whether it is worth asking each allowlist if it names this host in other letters: some allowlist does, or there is a
    /// capital, which makes a host of what was meant as an organisation of Docker Hub.
    pub fn may_spell_otherwise(&self, host: &str) -> bool {
        let differs = |other: &str| other.eq_ignore_ascii_case(host) && other != host;
        host.bytes().any(|byte| byte.is_ascii_uppercase()) || self.allowed.patterns.hosts().any(differs)
    }
}

/// Sets of patterns, each different pattern once, with those whose it is.
#[derive(Clone, Debug, Default)]
struct Merged {
    patterns: PatternSet,
    /// In the order of the patterns.
    holders: Vec<Bits>,
}

impl Merged {
    fn new<'a>(sets: impl Iterator<Item = (u32, &'a PatternSet)>) -> Self {
        let mut indexes: HashMap<&ImagePattern, usize> = HashMap::new();
        let (mut patterns, mut holders) = (Vec::new(), Vec::<Bits>::new());
        for (holder, set) in sets {
            for pattern in set {
                let index = *indexes.entry(pattern).or_insert(patterns.len());
                match holders.get_mut(index) {
                    Some(holders) => holders.insert(holder),
                    None => {
                        patterns.push(pattern.clone());
                        holders.push(Bits::from_iter([holder]));
                    }
                }
            }
        }
        Self { patterns: PatternSet::new(patterns), holders }
    }

    fn add_holders(&self, reference: &ImageReference, to: &mut Bits) {
        for holders in self.patterns.all_matches(reference).filter_map(|index| self.holders.get(index)) {
            to.or(holders);
        }
    }

    fn add_holders_of_any_image(&self, to: &mut Bits) {
        if let Some(holders) = self.patterns.any_image().and_then(|index| self.holders.get(index)) {
            to.or(holders);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::core::decide::is_allowed;
    use crate::core::fixtures::{policies, policy};
    use crate::core::image::{ImageName, ImagePattern};
    use crate::core::presence::is_preloaded;

    const PATTERNS: [&str; 9] =
        ["**", "docker.io/**", "nginx", "nginx:1.*", "team-*/app", "team-1/*", "r.io/**/app:2", "R.io/x", "*"];
    const IMAGES: [&str; 9] = [
        "nginx",
        "nginx:1.2",
        "nginx:2",
        "team-1/app",
        "team-2/app:9",
        "r.io/a/b/app:2",
        "R.io/x",
        "r.io/x",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];

    fn patterns() -> impl Strategy<Value = Vec<ImagePattern>> {
        let pattern = prop::sample::select(PATTERNS.to_vec());
        prop::collection::vec(pattern.prop_map(|text| ImagePattern::parse(text).expect("a pattern")), 0..5)
    }

    proptest! {
        #[test]
        fn all_at_once_say_what_each_policy_says_alone(
            all in prop::collection::vec((prop::option::of(patterns()), patterns()), 1..90),
        ) {
            let all = all.into_iter().enumerate().map(|(index, (allowed, preloaded))| {
                let mut policy = policy(&format!("p{index}"));
                policy.allowed_images = allowed.map(|patterns| patterns.into_iter().collect());
                policy.preloaded_images = preloaded.into_iter().collect();
                policy
            });
            let policies = policies(all);
            for image in IMAGES {
                let name = ImageName::parse(image).expect("an image");
                let said = policies.patterns().of(&name);
                for entry in policies.iter() {
                    prop_assert_eq!(said.allowed.contains(entry.place), is_allowed(&entry.policy, &name), "{}", image);
                    prop_assert_eq!(said.preloaded.contains(entry.place), is_preloaded(&entry.policy, &name), "{}", image);
                }
            }
        }
    }
}
