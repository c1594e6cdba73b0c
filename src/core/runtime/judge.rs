//! Is a failure permanent, and for whom?
//!
//! Enters: one trouble of one pod, the clock of its image over all pods of the task, and what nodes and brakes say. Leaves: a
//! ruling, with what it waits for where it waits. The whole table of section 5 of the design is here, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::cause::{FailureClass, Permanence, Scope};
use super::super::image::ImageReference;
use super::super::policy::Policy;
use super::brake::{Brakes, Level};
use super::clock::{Apart, ImageClock};
use super::moment::{Moment, elapsed};
use super::nodes::{Nodes, Reach};
use super::pods::{Source, Starts, Trouble};
use super::rules::Rules;
use super::symptoms::Told;

/// A node's list of images is late by up to 40 s, either way. Twice that, and it is not lateness.
pub const LIST_LAG: Duration = Duration::from_secs(80);

/// Why nothing is concluded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For the end of the grace.
    Grace,
    /// For a cause: the kubelet only says that it backs off.
    Cause,
    /// Only an Event has told the cause, and anybody can write one.
    OwnWords,
    /// The cause passes by itself: it ends by the retry cap alone.
    Transient,
    /// It could still be either, and nothing corroborates it.
    Unclear,
    /// "Not found" must be said twice, half a grace apart.
    SecondPull,
    /// A "no" must have stood for half a grace.
    Firmness,
    /// Containers of the same repository started meanwhile.
    OthersStarted,
    /// The node has listed the image for a short while: the kubelet looks again within seconds. So much longer, and it is
    /// no lateness.
    JustListed(Duration),
    /// A brake is on.
    Brake(Level),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// `until`: when it may be different, if nothing else changes.
    Wait { waits: Waits, until: Option<Moment> },
    /// Permanent for this pod on its node; another node may do better.
    Node,
    /// Permanent wherever the task's pods land.
    Task,
}

/// A ruling, and the class that it was made for: what the kubelet words as `NeverPull` may be `NeverPullNoAccess`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub class: FailureClass,
    pub permanence: Permanence,
    pub ruling: Ruling,
}

/// What a ruling is made under.
pub(super) struct Bench<'a> {
    pub now: Moment,
    pub wall: Timestamp,
    pub rules: &'a Rules,
    pub policies: &'a [&'a Policy],
    pub nodes: &'a dyn Nodes,
    pub brakes: &'a Brakes,
    pub starts: &'a Starts,
    /// The wall-clock time of a moment.
    pub wall_of: &'a dyn Fn(Moment) -> Timestamp,
    /// Nodes of the task's pods that fail for the same image and class.
    pub failing_on: &'a dyn Fn(FailureClass, &str) -> BTreeSet<String>,
}

/// The class and permanence that the words and the inventory make together.
pub(super) fn classify_here(
    nodes: &dyn Nodes,
    trouble: &Trouble,
    node: Option<&str>,
    wall: Timestamp,
) -> Option<(FailureClass, Permanence, Option<Waits>)> {
    let (cause, source) = trouble.cause.as_ref()?;
    let doubt = match source {
        Source::Status => None,
        Source::Event => Some(Waits::OwnWords),
    };
    if cause.class == FailureClass::NeverPull
        && let (Some(node), Some(image)) = (node, trouble.reference())
        && let Some(since) = nodes.listed_since(node, image)
    {
        let listed = elapsed(since, wall);
        return Some(if listed >= LIST_LAG {
            (FailureClass::NeverPullNoAccess, FailureClass::NeverPullNoAccess.permanence(), doubt)
        } else {
            (FailureClass::NeverPull, Permanence::Unclear, Some(Waits::JustListed(LIST_LAG.saturating_sub(listed))))
        });
    }
    Some((cause.class, cause.permanence, doubt))
}

const fn wait(waits: Waits, until: Option<Moment>) -> Ruling {
    Ruling::Wait { waits, until }
}

/// Judges one trouble. `None`: no cause was ever told, so there is no class to speak of.
pub(super) fn judge(
    bench: &Bench<'_>,
    trouble: &Trouble,
    clock: &ImageClock,
    reach: Reach<'_>,
    node: Option<&str>,
) -> Option<Judged> {
    let (class, permanence, doubt) = classify_here(bench.nodes, trouble, node, bench.wall)?;
    let ruling = rule(bench, trouble, clock, reach, node, (class, permanence, doubt));
    Some(Judged { class, permanence, ruling })
}

fn rule(
    bench: &Bench<'_>,
    trouble: &Trouble,
    clock: &ImageClock,
    reach: Reach<'_>,
    node: Option<&str>,
    (class, permanence, doubt): (FailureClass, Permanence, Option<Waits>),
) -> Ruling {
    match doubt {
        Some(Waits::JustListed(rest)) => return wait(Waits::JustListed(rest), Some(bench.now.plus(rest))),
        Some(doubt) => return wait(doubt, None),
        None => {}
    }
    match (permanence, class) {
        (Permanence::Permanent, _)
        | (Permanence::Unclear, FailureClass::NotFoundOrDenied | FailureClass::NeverPullNoAccess) => {}
        (Permanence::Unclear, _) => return wait(Waits::Unclear, None),
        (Permanence::Transient, _) => return wait(Waits::Transient, None),
    }
    match bench.brakes.holding(&trouble.failure(node, bench.nodes, bench.wall)) {
        Level::Outage => return wait(Waits::Brake(Level::Outage), None),
        Level::Suspect if permanence == Permanence::Unclear => return wait(Waits::Brake(Level::Suspect), None),
        Level::Normal | Level::Suspect => {}
    }
    let grace = bench.rules.grace(class);
    let half = grace / 2;
    if clock.waited(bench.now) < grace {
        return wait(Waits::Grace, Some(clock.since().plus(grace)));
    }
    let firm = clock.firm_for(trouble, bench.now);
    if firm < half {
        return wait(Waits::Firmness, Some(bench.now.plus(half.saturating_sub(firm))));
    }
    if class == FailureClass::NotFound {
        let said_now = matches!(trouble.symptom.told, Told::Cause(_));
        match clock.apart_by(trouble, half, bench.now) {
            Apart::Seen => {}
            Apart::Presumed if said_now => {}
            Apart::Presumed | Apart::Never => return wait(Waits::SecondPull, None),
            Apart::Expected(at) => return wait(Waits::SecondPull, Some(at)),
        }
    }
    if class == FailureClass::NotFoundOrDenied
        && trouble.reference().is_none_or(|image| others_started(bench, image, clock))
    {
        return wait(Waits::OthersStarted, None);
    }
    match class.scope() {
        Scope::Task => Ruling::Task,
        Scope::Node if shared_by_all(bench, trouble, reach, node, class) => Ruling::Task,
        Scope::Node => Ruling::Node,
    }
}

/// Clocks of machines differ; a start a little before the first failure speaks against a denial as well.
const SKEW: Duration = Duration::from_secs(5);

fn others_started(bench: &Bench<'_>, image: &ImageReference, clock: &ImageClock) -> bool {
    bench.starts.maybe_after(image, (bench.wall_of)(clock.since().minus(SKEW)))
}

/// Whether a cause that is true for one node is proven for every node that the task's pods could land on.
fn shared_by_all(
    bench: &Bench<'_>,
    trouble: &Trouble,
    reach: Reach<'_>,
    node: Option<&str>,
    class: FailureClass,
) -> bool {
    let everywhere = || bench.nodes.are_all(reach, &(bench.failing_on)(class, &trouble.image_key), bench.wall);
    match class {
        FailureClass::NeverPull => {
            let Some(image) = &trouble.symptom.parsed else { return false };
            match reach {
                // The kubelet of the only node has just said so.
                Reach::Itself { .. } => true,
                Reach::Like(_) => bench.nodes.absent_everywhere(reach, image, bench.policies, bench.wall),
            }
        }
        FailureClass::PlatformMismatch => match reach {
            Reach::Itself { .. } => true,
            Reach::Like(_) => {
                !bench.rules.elastic && node.is_some_and(|node| bench.nodes.share_platform(reach, node, bench.wall))
            }
        },
        FailureClass::NeverPullNoAccess
        | FailureClass::DiskFull
        | FailureClass::CorruptImage
        | FailureClass::NodeThrottle
        | FailureClass::InspectFailed => match reach {
            Reach::Itself { .. } => true,
            Reach::Like(_) => !bench.rules.elastic && everywhere(),
        },
        FailureClass::InvalidName
        | FailureClass::NotFound
        | FailureClass::Unauthorized
        | FailureClass::NotFoundOrDenied
        | FailureClass::RateLimited
        | FailureClass::Network
        | FailureClass::RegistryError
        | FailureClass::Tls
        | FailureClass::SignatureInvalid
        | FailureClass::Unknown => true,
    }
}
