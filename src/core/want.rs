//! The images that a question is about, each once.
//!
//! Enters: the containers of a question. Leaves: images with the containers that use them, and the texts about them that
//! no policy changes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::explanation::{Basis, Explanation};
use super::image::{ImageName, ReferenceError};
use super::message::{self, Shown};
use super::pod::PullPolicy;
use super::reason::Reason;
use super::verdict::Question;

/// One image with one pull policy, and the containers that use it so.
pub(in crate::core) struct Want<'a> {
    pub written: &'a str,
    pub parsed: &'a Result<ImageName, ReferenceError>,
    pub pull_policy: PullPolicy,
    containers: Vec<&'a str>,
    /// As findings hold it, once there is one.
    image: OnceCell<Arc<str>>,
    names: OnceCell<Arc<[String]>>,
    shown: OnceCell<Option<Arc<Shown>>>,
    /// Texts that do not depend on the policy, once they are needed.
    texts: BTreeMap<Reason, Explanation>,
}

/// The images that are judged, in the order of their first containers.
pub(in crate::core) fn wants<'a>(question: &Question<'a>) -> Vec<Want<'a>> {
    let mut wants: Vec<Want<'a>> = Vec::new();
    let mut places: BTreeMap<(&str, PullPolicy), usize> = BTreeMap::new();
    for (index, container) in question.pod.containers.iter().enumerate() {
        let written = container.image.as_str();
        // Some templates hold images that are filled in later, and no pod ever has.
        let placeholder = question.subject.is_template() && matches!(written.trim(), "" | "auto");
        if placeholder || !question.judged.contains(index) {
            continue;
        }
        let place = *places.entry((written, container.pull_policy)).or_insert(wants.len());
        match wants.get_mut(place) {
            Some(want) => want.containers.push(&container.name),
            None => wants.push(Want {
                written,
                parsed: &container.parsed,
                pull_policy: container.pull_policy,
                containers: vec![&container.name],
                image: OnceCell::new(),
                names: OnceCell::new(),
                shown: OnceCell::new(),
                texts: BTreeMap::new(),
            }),
        }
    }
    wants
}

impl Want<'_> {
    pub fn image(&self) -> Arc<str> {
        Arc::clone(self.image.get_or_init(|| self.written.into()))
    }

    /// The names of the containers that use it.
    pub fn containers(&self) -> Arc<[String]> {
        Arc::clone(self.names.get_or_init(|| self.containers.iter().map(|name| (*name).to_owned()).collect()))
    }

    /// None where it is no image reference.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        let shown = self.shown.get_or_init(|| {
            let name = self.parsed.as_ref().ok()?.clone();
            Some(Arc::new(Shown { written: self.image(), name, pull_policy: self.pull_policy }))
        });
        shown.clone()
    }

    pub fn text(&mut self, reason: Reason, write: fn(&Shown) -> String) -> Explanation {
        let shown = self.shown();
        let basis = || shown.map_or_else(|| Basis::Words("".into()), |shown| Basis::Image(shown, write));
        self.texts.entry(reason).or_insert_with(|| basis().into()).clone()
    }

    pub fn invalid(&mut self, error: &ReferenceError) -> Explanation {
        let written = self.written;
        let text = self.texts.entry(Reason::InvalidImageReference);
        text.or_insert_with(|| message::invalid(written, error).into()).clone()
    }
}
