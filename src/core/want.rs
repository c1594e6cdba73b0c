//! The images that a question is about, each once.
//!
//! Enters: the containers of a question. Leaves: images with the containers that use them, and the texts about them that
//! no policy changes.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Image and containers as findings hold them, once there is one.
    shared: Option<(Arc<str>, Arc<[String]>)>,
    /// Texts that do not depend on the policy, once they are needed.
    texts: BTreeMap<Reason, Arc<str>>,
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
                shared: None,
                texts: BTreeMap::new(),
            }),
        }
    }
    wants
}

impl<'a> Want<'a> {
    pub fn shared(&mut self) -> (Arc<str>, Arc<[String]>) {
        let (written, containers) = self.shared.get_or_insert_with(|| {
            (self.written.into(), self.containers.iter().map(|name| (*name).to_owned()).collect())
        });
        (Arc::clone(written), Arc::clone(containers))
    }

    pub fn shown(&self) -> Option<Shown<'a>> {
        let name = self.parsed.as_ref().ok()?;
        Some(Shown { written: self.written, name, pull_policy: self.pull_policy })
    }

    pub fn text(&mut self, reason: Reason, write: impl FnOnce(&Shown<'_>) -> String) -> Arc<str> {
        let shown = self.shown();
        let text = self.texts.entry(reason);
        Arc::clone(text.or_insert_with(|| shown.map(|shown| write(&shown)).unwrap_or_default().into()))
    }

    pub fn invalid(&mut self, error: &ReferenceError) -> Arc<str> {
        let written = self.written;
        let text = self.texts.entry(Reason::InvalidImageReference);
        Arc::clone(text.or_insert_with(|| message::invalid(written, error).into()))
    }
}
