//! What kubelets have said themselves: "this image is not here".
//!
//! Enters: `ErrImageNeverPull` of a pod on a node. Leaves: on which nodes an image is absent for pods like that one. Any
//! list may be cut off, late or frozen; the kubelet that refused a pod has looked.
//!
//! A word holds for pods with the same pull secrets only: from Kubernetes 1.35 the kubelet says the same of an image that
//! is there but was pulled with credentials that the pod lacks. It ends when the node lists the image anew, when a container
//! of it starts there for a pod like that one, or after [`WORD_HOLDS`].

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::core::image::ImageReference;
use crate::core::pod::PodFacts;

/// How long a kubelet's word is believed.
pub const WORD_HOLDS: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// How many words are kept, some 200 bytes each. A cluster that fails on more pairs of node and image within ten minutes
/// loses the oldest: then the lists decide again, as they do everywhere else.
pub const MAX_WORDS: usize = 8192;

/// The credentials with which a pod may use images: two pods with equal access are told the same by a kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// Secrets are of a namespace; without any the namespace does not matter, and is empty.
    namespace: String,
    secrets: Vec<String>,
}

impl Access {
    pub fn of(pod: &PodFacts) -> Self {
        Self::new(&pod.namespace, &pod.pull_secrets)
    }

    pub fn new(namespace: &str, secrets: &[String]) -> Self {
        if secrets.is_empty() {
            return Self::default();
        }
        let mut secrets = secrets.to_vec();
        secrets.sort_unstable();
        secrets.dedup();
        Self { namespace: namespace.to_owned(), secrets }
    }
}

#[derive(Clone, Debug)]
struct OfImage {
    reference: ImageReference,
    said: BTreeMap<(u32, Access), Timestamp>,
}

/// The words of all kubelets, by the name under which a node would list the image.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    images: BTreeMap<Box<str>, OfImage>,
    count: usize,
}

impl Words {
    pub fn say(&mut self, slot: u32, image: &ImageReference, access: Access, at: Timestamp) {
        let known = self.images.get(image.lookup()).is_some_and(|of| of.said.contains_key(&(slot, access.clone())));
        if !known && self.count >= MAX_WORDS {
            self.make_room(at);
        }
        let of_image = self
            .images
            .entry(image.lookup().into())
            .or_insert_with(|| OfImage { reference: image.clone(), said: BTreeMap::new() });
        match of_image.said.get_mut(&(slot, access.clone())) {
            Some(when) => *when = at.max(*when),
            None => {
                of_image.said.insert((slot, access), at);
                self.count += 1;
            }
        }
    }

    /// Drops what has expired, and where that is nothing, the oldest half: so the price is paid once in a while.
    fn make_room(&mut self, now: Timestamp) {
        self.retain(|_, _, at| holds(at, now));
        if self.count >= MAX_WORDS {
            let mut times: Vec<Timestamp> = self.images.values().flat_map(|of| of.said.values().copied()).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.retain(|_, _, at| at > median);
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&str, u32, Timestamp) -> bool) {
        for (lookup, of_image) in &mut self.images {
            of_image.said.retain(|(slot, _), at| keep(lookup, *slot, *at));
        }
        self.images.retain(|_, of_image| !of_image.said.is_empty());
        self.count = self.images.values().map(|of_image| of_image.said.len()).sum();
    }

    /// The node lists the image now.
    pub fn listed(&mut self, slot: u32, lookup: &str) {
        self.unsay(lookup, |(at_slot, _), _| *at_slot == slot);
    }

    /// A container of the image has started on the node, for a pod with this access.
    pub fn started(&mut self, slot: u32, lookup: &str, access: &Access, started: Timestamp) {
        self.unsay(lookup, |(at_slot, of), at| *at_slot == slot && of == access && at <= started);
    }

    fn unsay(&mut self, lookup: &str, is_over: impl Fn(&(u32, Access), Timestamp) -> bool) {
        let Some(of_image) = self.images.get_mut(lookup) else { return };
        let before = of_image.said.len();
        of_image.said.retain(|of, at| !is_over(of, *at));
        self.count -= before - of_image.said.len();
        if of_image.said.is_empty() {
            self.images.remove(lookup);
        }
    }

    /// The node is gone, or is another machine of the same name.
    pub fn forget(&mut self, slot: u32) {
        if self.count > 0 {
            self.retain(|_, at_slot, _| at_slot != slot);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The nodes whose kubelets deny the image to pods with this access.
    pub fn denying<'a>(&'a self, lookup: &str, access: &'a Access, now: Timestamp) -> impl Iterator<Item = u32> + 'a {
        self.images
            .get(lookup)
            .into_iter()
            .flat_map(|of_image| &of_image.said)
            .filter(move |((_, of), at)| of == access && holds(**at, now))
            .map(|((slot, _), _)| *slot)
    }

    pub fn heard(&self, slot: u32, lookup: &str, access: &Access, now: Timestamp) -> Option<Timestamp> {
        let at = self.images.get(lookup)?.said.get(&(slot, access.clone()))?;
        holds(*at, now).then_some(*at)
    }

    /// All words that hold, whatever the access: slot, image, time.
    pub fn all(&self, now: Timestamp) -> impl Iterator<Item = (u32, &ImageReference, Timestamp)> {
        self.images.values().flat_map(move |of_image| {
            let said = of_image.said.iter().filter(move |(_, at)| holds(**at, now));
            said.map(|((slot, _), at)| (*slot, &of_image.reference, *at))
        })
    }
}

/// A word from the future (the clocks differ) holds.
fn holds(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < WORD_HOLDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImageReference {
        ImageReference::parse(text).expect("a reference")
    }

    #[test]
    fn words_are_bounded_and_the_newest_stay() {
        let mut words = Words::default();
        for second in 0..20_000 {
            let at = Timestamp::from_second(second / 100).expect("a time");
            words.say(u32::try_from(second).expect("a slot"), &image("a:1"), Access::default(), at);
            assert!(words.count <= MAX_WORDS);
        }
        let now = Timestamp::from_second(200).expect("a time");
        assert_eq!(words.denying("docker.io/library/a:1", &Access::default(), now).max(), Some(19_999));
        assert_eq!(words.count, words.all(now).count());
    }

    #[test]
    fn a_start_unsays_what_was_said_before_it_to_pods_like_that_one() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let (lookup, with) = ("docker.io/library/a:1", Access::new("apps", &["secret".into()]));
        let mut words = Words::default();
        for (slot, access) in [(1, Access::default()), (1, with.clone()), (2, Access::default())] {
            words.say(slot, &image("a:1"), access, at(10));
        }
        words.started(1, lookup, &Access::default(), at(9));
        assert_eq!(words.count, 3, "it was said after that");
        words.started(1, lookup, &Access::default(), at(10));
        assert!(words.heard(1, lookup, &Access::default(), at(11)).is_none());
        assert!(words.heard(1, lookup, &with, at(11)).is_some(), "others may still be refused");
        assert!(words.heard(2, lookup, &Access::default(), at(11)).is_some(), "another node");
        assert_eq!(words.count, 2);
    }

    #[test]
    fn access_without_secrets_is_the_same_in_every_namespace() {
        assert_eq!(Access::new("a", &[]), Access::new("b", &[]));
        assert_ne!(Access::new("a", &["s".into()]), Access::new("b", &["s".into()]));
    }
}
