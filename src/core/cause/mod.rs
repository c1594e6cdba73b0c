//! Why an image did not come: the words of a kubelet or a runtime, turned into a [`Cause`].
//!
//! Enters: a waiting reason or an Event's reason, with its message ([`Words`]). Leaves: a [`Diagnosis`], with a class from
//! the one vocabulary ([`FailureClass`]), how permanent the evidence is, and what a person should do. It must not know a
//! pod, a node, a clock or a policy: whether a cause is acted upon is decided elsewhere.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`class`] | the vocabulary: classes, permanence, scope, and the default remedy of each class |
//! | `symptom` | is it a pull failure at all, and which part of the text is the cause |
//! | `mask` | hides names, addresses, digests and HTML pages, so that no word of the table can match in them |
//! | `catalogue` | **the table**: pattern, class, permanence, source. To teach a new wording, add a row there |
//! | `classify` | which row of those that match decides |

mod catalogue;
pub mod class;
mod classify;
mod mask;
mod symptom;
#[cfg(test)]
mod tests;

pub use class::{FailureClass, Permanence, Scope, UnknownClass};
pub use classify::classify;

/// What a kubelet said of a container, in a waiting state or in an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<'a> {
    /// The waiting reason or the Event's reason. May be empty: then the message alone decides.
    pub reason: &'a str,
    /// The whole message, not shortened.
    pub message: &'a str,
    /// The image of the container, where the caller knows it.
    pub image: Option<&'a str>,
}

/// Why an image did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub class: FailureClass,
    /// Of the evidence, not of the class: a missing tag is permanent, an HTML page with a 404 is not.
    pub permanence: Permanence,
    /// As the kubelet names it, else as given. For an image volume that is the volume's, not the container's.
    pub image: Option<String>,
    /// One line for people, at most [`SUMMARY_LIMIT`] bytes: the innermost cause without its wrappings.
    pub summary: String,
    /// What a person should do about it.
    pub remedy: String,
}

/// The longest summary, in bytes: it goes into conditions and Event notes (1 kB), beside other text.
pub const SUMMARY_LIMIT: usize = 200;

/// What the words amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    PullFailure(Cause),
    /// A pull failure whose cause is not in these words: the bare back-off of a kubelet before 1.32, or an Event that
    /// only repeats the reason. The cause was said earlier, or is in another Event.
    CauseElsewhere {
        image: Option<String>,
    },
    /// Only looks like one: a crash loop, a config error, a sandbox image.
    NotAPullFailure,
}
