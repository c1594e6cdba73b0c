//! The envelope of a review: what the API server asks, and where in the bytes the objects are.
//!
//! Enters: the body of a request. Leaves: an `Envelope` that borrows from it; the objects in it are still JSON, so that
//! nothing is decoded twice and nothing that nobody asks for. If the body cannot be read, the request's uid is kept as
//! far as it was seen, and a field of a wrong kind is passed over in the search for it: the API server throws an answer
//! without the uid away, and with it the sentence that says what is wrong.
//!
//! The objects of a good review can also be decoded on the way, in one look at the body instead of two
//! ([`Envelope::parse_decoded`]): with large pods these looks are most of what a review costs.
//!
//! NB: nothing here recurses into the body. `serde_json` skips what is not asked for in a loop, so the depth of a hostile
//! body costs neither stack nor memory.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use super::bounded::bounded;
use super::question::{Decoded, ImageKind, ImageObject, Operation, Submitted};

/// The version of the admission API that we speak.
pub const VERSION: &str = "admission.k8s.io/v1";
/// The version before it. An answer to it must be in it, or nobody sees what it says.
pub const OLD_VERSION: &str = "admission.k8s.io/v1beta1";

/// How much of an offending text is quoted.
const QUOTED: usize = 240;

/// Real uids have 36 characters; what is far longer is no uid, and is not worth echoing.
const MAX_UID: usize = 256;

/// A review that can be judged.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    pub uid: Cow<'a, str>,
    pub group: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub kind: Cow<'a, str>,
    /// Empty: the object itself.
    pub subresource: Cow<'a, str>,
    pub operation: Operation,
    /// Empty for what is in no namespace.
    pub namespace: Cow<'a, str>,
    /// Empty where the API server has yet to generate it.
    pub name: Cow<'a, str>,
    pub dry_run: bool,
    /// The object as it is to be; `None` on DELETE.
    pub object: Option<&'a RawValue>,
    /// The object as it was; `None` on CREATE.
    pub old_object: Option<&'a RawValue>,
}

/// A review that cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct BadReview {
    /// With it the answer is a review, without it the most that can be given is an HTTP error.
    pub uid: Option<String>,
    /// The version to answer in.
    pub version: &'static str,
    #[source]
    pub problem: ReviewProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReviewProblem {
    #[error("the body is empty: post an AdmissionReview of {VERSION} as JSON")]
    Empty,
    #[error("the body is not UTF-8 text: post an AdmissionReview of {VERSION} as JSON")]
    Encoding,
    #[error("the body cannot be read as an AdmissionReview in JSON: {cause}")]
    Syntax { cause: String },
    #[error("the body is of kind `{kind}`: post an AdmissionReview of {VERSION}")]
    Kind { kind: String },
    #[error(
        "the review is of version `{version}`, only {VERSION} is spoken here: set `admissionReviewVersions: [v1]` in the webhook configuration"
    )]
    Version { version: String },
    #[error("the review's `{field}` cannot be read: {cause}")]
    Field { field: &'static str, cause: String },
    #[error("the review has no `request`: there is nothing to judge")]
    NoRequest,
    #[error("the review has no `request.uid`, without which it cannot be answered")]
    NoUid,
    #[error("the review's `request.uid` has {length} characters, at most {MAX_UID} are taken")]
    LongUid { length: usize },
    #[error("the review's `request.{field}` is missing")]
    Missing { field: &'static str },
    #[error("the review's `request.operation` is `{operation}`: it must be CREATE, UPDATE, DELETE or CONNECT")]
    Operation { operation: String },
}

impl<'a> Envelope<'a> {
    /// # Errors
    /// The body is not a review of our version, or lacks what is needed to judge and answer it.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadReview> {
        let mut draft = Draft::default();
        let envelope = read(body, &mut draft).and_then(|()| draft.fault.take().map_or(Ok(()), Err));
        let envelope = envelope.and_then(|()| draft.finish());
        envelope.map_err(|problem| BadReview {
            uid: draft.uid.filter(|uid| is_uid(uid)).map(Cow::into_owned),
            version: if draft.api_version.as_deref() == Some(OLD_VERSION) { OLD_VERSION } else { VERSION },
            problem,
        })
    }

    /// The same, and the objects decoded where that can be done on the way: the API server says of what kind an object is
    /// before it writes the object. Whoever does otherwise, or sends what cannot be decoded, is read as by [`Self::parse`],
    /// so that an answer about a bad object does not depend on this.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn parse_decoded(body: &'a [u8]) -> Result<(Self, Option<Decoded>), BadReview> {
        let mut draft = Draft { decodes: true, ..Draft::default() };
        let read = read(body, &mut draft).and_then(|()| draft.fault.take().map_or(Ok(()), Err));
        if let Ok(envelope) = read.and_then(|()| draft.finish()) {
            match (draft.decoded.take(), draft.old_decoded.take()) {
                (None, None) => return Ok((envelope, None)),
                (Some(object), old_object) if envelope.old_object.is_none() => {
                    return Ok((envelope, Some(Decoded { object, old_object })));
                }
                // Somebody wrote the kind between the two.
                (Some(_), _) | (None, Some(_)) => {}
            }
        }
        Self::parse(body).map(|envelope| (envelope, None))
    }

    /// What is submitted, for the translation into a question. An object that is not there is JSON's `null`.
    pub fn submitted(&self) -> Submitted<'_> {
        Submitted {
            group: &self.group,
            kind: &self.kind,
            subresource: &self.subresource,
            operation: self.operation,
            namespace: &self.namespace,
            object: self.object.map_or("null", RawValue::get),
            old_object: self.old_object.map(RawValue::get),
            admitted: true,
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone().into_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// A piece of somebody's text, at a length fit for a message: `serde` quotes what it did not expect in full.
pub(super) fn excerpt(text: &str, shown: usize) -> String {
    match text.char_indices().nth(shown) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn is_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= MAX_UID
}

fn read<'a>(body: &'a [u8], draft: &mut Draft<'a>) -> Result<(), ReviewProblem> {
    if body.trim_ascii().is_empty() {
        return Err(ReviewProblem::Empty);
    }
    // Once for the whole body, so that the objects can be cut out of it without looking again.
    let text = std::str::from_utf8(body).map_err(|_| ReviewProblem::Encoding)?;
    let mut input = serde_json::Deserializer::from_str(text);
    Review(draft)
        .deserialize(&mut input)
        .and_then(|()| input.end())
        .map_err(|error| ReviewProblem::Syntax { cause: excerpt(&error.to_string(), QUOTED) })
}

/// What was seen of a review so far. It outlives an error in the middle of the body.
#[derive(Debug, Default)]
struct Draft<'a> {
    api_version: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    request: bool,
    uid: Option<Cow<'a, str>>,
    object_kind: Option<GroupVersionKind<'a>>,
    subresource: Option<Cow<'a, str>>,
    operation: Option<Cow<'a, str>>,
    namespace: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    dry_run: bool,
    object: Option<&'a RawValue>,
    old_object: Option<&'a RawValue>,
    /// Objects are to be decoded; then they are here, and not above.
    decodes: bool,
    decoded: Option<ImageObject>,
    old_decoded: Option<ImageObject>,
    /// The first field of a wrong kind.
    fault: Option<ReviewProblem>,
}

impl<'a> Draft<'a> {
    /// What the object is, where it is to be decoded and enough is known of it already.
    fn decodable(&self) -> Option<ImageKind> {
        let kind = self.object_kind.as_ref().filter(|_| self.decodes)?;
        let changes = matches!(self.operation.as_deref(), Some("CREATE" | "UPDATE"));
        ImageKind::of(&kind.group, &kind.kind, self.subresource.as_deref().unwrap_or_default()).ok().filter(|_| changes)
    }

    fn is_update(&self) -> bool {
        self.operation.as_deref() == Some("UPDATE")
    }

    /// The value of a field; none where it is of a wrong kind.
    fn take<M: MapAccess<'a>, T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        map: &mut M,
    ) -> Result<Option<T>, M::Error> {
        let raw = map.next_value::<&'a RawValue>()?;
        Ok(serde_json::from_str::<Option<T>>(raw.get()).unwrap_or_else(|error| {
            let cause = error.to_string();
            // The place is that within the field, which would mislead.
            let cause = cause.split(" at line ").next().unwrap_or_default();
            self.fault.get_or_insert_with(|| ReviewProblem::Field { field, cause: excerpt(cause, QUOTED) });
            None
        }))
    }

    fn take_text<M: MapAccess<'a>>(
        &mut self,
        field: &'static str,
        map: &mut M,
    ) -> Result<Option<Cow<'a, str>>, M::Error> {
        Ok(self.take::<M, Text<'a>>(field, map)?.map(|text| text.0))
    }

    fn finish(&self) -> Result<Envelope<'a>, ReviewProblem> {
        match self.kind.as_deref() {
            Some("AdmissionReview") => {}
            kind => return Err(ReviewProblem::Kind { kind: excerpt(kind.unwrap_or_default(), QUOTED) }),
        }
        match self.api_version.as_deref() {
            Some(VERSION) => {}
            version => return Err(ReviewProblem::Version { version: excerpt(version.unwrap_or_default(), QUOTED) }),
        }
        if !self.request {
            return Err(ReviewProblem::NoRequest);
        }
        let uid = self.uid.clone().filter(|uid| !uid.is_empty()).ok_or(ReviewProblem::NoUid)?;
        if !is_uid(&uid) {
            return Err(ReviewProblem::LongUid { length: uid.len() });
        }
        let GroupVersionKind { group, version, kind } =
            self.object_kind.clone().ok_or(ReviewProblem::Missing { field: "kind" })?;
        if kind.is_empty() {
            return Err(ReviewProblem::Missing { field: "kind.kind" });
        }
        let operation = match self.operation.as_deref() {
            Some("CREATE") => Operation::Create,
            Some("UPDATE") => Operation::Update,
            Some("DELETE") => Operation::Delete,
            Some("CONNECT") => Operation::Connect,
            Some(other) => return Err(ReviewProblem::Operation { operation: excerpt(other, QUOTED) }),
            None => return Err(ReviewProblem::Missing { field: "operation" }),
        };
        let text = |text: &Option<Cow<'a, str>>| text.clone().unwrap_or_default();
        Ok(Envelope {
            uid,
            group,
            version,
            kind,
            subresource: text(&self.subresource),
            operation,
            namespace: text(&self.namespace),
            name: text(&self.name),
            dry_run: self.dry_run,
            object: self.object,
            old_object: self.old_object,
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct GroupVersionKind<'a> {
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// Text that is borrowed where it holds no escapes. A bare `Cow` would always be a copy.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn next_raw<'a, M: MapAccess<'a>>(map: &mut M) -> Result<Option<&'a RawValue>, M::Error> {
    Ok(Some(map.next_value::<&'a RawValue>()?).filter(|raw| raw.get() != "null"))
}

struct Review<'d, 'a>(&'d mut Draft<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum ReviewField {
    ApiVersion,
    Kind,
    Request,
    #[serde(other)]
    Other,
}

impl<'a> DeserializeSeed<'a> for Review<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Review<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AdmissionReview")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let Self(draft) = self;
        while let Some(field) = map.next_key::<ReviewField>()? {
            match field {
                ReviewField::ApiVersion => draft.api_version = draft.take_text("apiVersion", &mut map)?,
                ReviewField::Kind => draft.kind = draft.take_text("kind", &mut map)?,
                ReviewField::Request => map.next_value_seed(Request(draft))?,
                ReviewField::Other => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Request<'d, 'a>(&'d mut Draft<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum RequestField {
    Uid,
    Kind,
    SubResource,
    Operation,
    Namespace,
    Name,
    DryRun,
    Object,
    OldObject,
    #[serde(other)]
    Other,
}

impl<'a> DeserializeSeed<'a> for Request<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_option(self)
    }
}

impl<'a> Visitor<'a> for Request<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request of a review")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'a>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let Self(draft) = self;
        draft.request = true;
        while let Some(field) = map.next_key::<RequestField>()? {
            match field {
                RequestField::Uid => draft.uid = draft.take_text("request.uid", &mut map)?,
                RequestField::Kind => draft.object_kind = draft.take("request.kind", &mut map)?,
                RequestField::SubResource => draft.subresource = draft.take_text("request.subResource", &mut map)?,
                RequestField::Operation => draft.operation = draft.take_text("request.operation", &mut map)?,
                RequestField::Namespace => draft.namespace = draft.take_text("request.namespace", &mut map)?,
                RequestField::Name => draft.name = draft.take_text("request.name", &mut map)?,
                RequestField::DryRun => draft.dry_run = draft.take("request.dryRun", &mut map)?.unwrap_or_default(),
                RequestField::Object => match draft.decodable() {
                    Some(kind) => draft.decoded = Some(bounded(|| map.next_value_seed(kind))?),
                    None => draft.object = next_raw(&mut map)?,
                },
                RequestField::OldObject => match draft.decodable().filter(|_| draft.is_update()) {
                    Some(kind) => draft.old_decoded = Some(bounded(|| map.next_value_seed(kind))?),
                    None => draft.old_object = next_raw(&mut map)?,
                },
                RequestField::Other => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
