//! The sentences that people read.
//!
//! Enters: findings and what they rest on. Leaves: text of bounded length, without line breaks or control characters. It
//! must not decide anything.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::eligibility::{Exclusion, Obstacle, Route};
use super::image::{ImageName, ReferenceError};
use super::nearest::{Misses, Near, Unfit};
use super::pod::PullPolicy;
use super::presence::{Lack, Tally};
use super::reason::Detail;
use super::verdict::Subject;

pub(in crate::core) const LAG: &str = "A just-loaded image takes up to 40 s to be seen.";

/// An image in quotes, shortened and with its control characters made visible: it is whatever somebody wrote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let is_special = |byte| !is_plain(byte) || matches!(byte, b'"' | b'\\');
        if self.0.len() <= SHOWN && !self.0.bytes().any(is_special) {
            f.write_str("\"")?;
            f.write_str(self.0)?;
            return f.write_str("\"");
        }
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", self.0.get(..end).unwrap_or_default()),
        }
    }
}

/// The image as written, and as it is resolved where that is not the same text.
#[derive(PartialEq, Eq)]
pub(in crate::core) struct Shown {
    pub written: Arc<str>,
    pub name: ImageName,
    pub pull_policy: PullPolicy,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            ImageName::Id(_) => write!(f, "image id {}", Quoted(&self.written)),
            ImageName::Reference(reference) => {
                write!(f, "image {}", Quoted(&self.written))?;
                if *reference.as_str() == *self.written { Ok(()) } else { write!(f, " ({reference})") }
            }
        }
    }
}

pub(in crate::core) fn invalid(written: &str, error: &ReferenceError) -> String {
    format!("image {} is no image reference, so no kubelet could run it: {error}.", Quoted(written))
}

pub(in crate::core) fn not_allowed(image: &Shown) -> String {
    match &image.name {
        ImageName::Reference(_) => format!("{image} matches none of the allowed images."),
        ImageName::Id(_) => {
            format!(
                "{image} matches none of the allowed images: an id names no repository, so only the pattern ** allows it."
            )
        }
    }
}

pub(in crate::core) fn always(image: &Shown) -> String {
    format!(
        "{image} has imagePullPolicy Always, so its registry is asked whatever the nodes hold, and the policy expects images to be on the nodes."
    )
}

pub(in crate::core) fn not_synced(image: &Shown) -> String {
    let why = because(image.pull_policy);
    format!("it is not known whether {image} is on a node, and {why}: Pullguard has not read the nodes yet.")
}

pub(in crate::core) fn namespace_unknown(namespace: &str) -> String {
    format!(
        "it is not known whether the policy applies: it selects namespaces by label, and the labels of namespace {} could not be had.",
        Quoted(namespace)
    )
}

pub(in crate::core) fn refused(image: &str, class: &str, message: &str, namespace: &str, record: &str) -> String {
    let message = message.trim_end_matches('.');
    format!(
        "the task of this pod has permanently failed to get image {} ({class}): {message}. Its record is PullFailure {namespace}/{record}; deleting that lets the task try again.",
        Quoted(image)
    )
}

const fn because(pull_policy: PullPolicy) -> &'static str {
    match pull_policy {
        PullPolicy::Never => "imagePullPolicy is Never",
        PullPolicy::IfNotPresent | PullPolicy::Always => "the policy expects images to be on the nodes",
    }
}

/// The node that a pod names, or is on.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::core) enum Way {
    Placed(Option<Arc<str>>),
    Bound(Arc<str>),
}

impl From<Route<'_>> for Way {
    fn from(route: Route<'_>) -> Self {
        match route {
            Route::Placed(placement) => Self::Placed(placement.node_name.as_deref().map(Into::into)),
            Route::Bound(own) => Self::Bound(own.into()),
        }
    }
}

/// What an explanation of absence or doubt rests on.
#[derive(PartialEq, Eq)]
pub(in crate::core) struct Evidence {
    pub image: Arc<Shown>,
    pub subject: Subject,
    pub way: Way,
    pub lack: Lack,
    /// The answer is that it is absent, not that it is unknown.
    pub proven: bool,
    /// The only candidate, where there is but one.
    pub only_node: Option<Arc<str>>,
    /// How many nodes the policy has.
    pub policy_nodes: usize,
    pub misses: Misses,
}

impl Evidence {
    /// What was found, as one sentence, or two.
    pub fn explain(&self) -> String {
        let mut text = String::with_capacity(512);
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        match cleaned(&text) {
            None => text,
            Some(cleaned) => cleaned,
        }
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { image, lack, .. } = self;
        let why = because(image.pull_policy);
        let place = Place(self);
        match lack.detail {
            Some(Detail::NoEligibleNode) => {
                write!(out, "it is not known whether {image} is on a node for this pod, and {why}: ")?;
                match (self.policy_nodes, &self.way) {
                    (_, Way::Bound(_)) => write!(out, "the node on which it runs is not known")?,
                    (0, Way::Placed(_)) => write!(out, "the policy selects no node that exists")?,
                    (1, Way::Placed(_)) => write!(out, "the one node of the policy could not take {}", self.runner())?,
                    (nodes, Way::Placed(_)) => {
                        write!(out, "none of the {nodes} nodes of the policy could take {}", self.runner())?;
                    }
                }
            }
            Some(Detail::ImageId) => {
                write!(out, "it is not known whether {image} is on {place}, and {why}: node lists hold no image ids")?;
            }
            Some(Detail::NoNodeHoldsAll) => self.write_apart(out, why)?,
            Some(Detail::MayScaleUp) if lack.tally.hold + lack.tally.hold_obstructed > 0 => {
                self.write_apart(out, why)?
            }
            None | Some(Detail::MayScaleUp) => {
                let link = if self.is_single() { "is not on" } else { "is on" };
                write!(out, "{image} {link} {place}, and {why}: ")?;
                self.write_counts(out)?;
            }
            Some(
                Detail::ListTruncated
                | Detail::ListEmpty
                | Detail::NamesTruncated
                | Detail::ShortName
                | Detail::TemporaryObstacle
                | Detail::InventoryNotSynced
                | Detail::NamespaceUnknown
                | Detail::Cause(_),
            ) => {
                write!(out, "it is not known whether {image} is on {place}, and {why}: ")?;
                self.write_counts(out)?;
            }
        }
        self.write_misses(out)?;
        out.push('.');
        if lack.detail == Some(Detail::MayScaleUp) {
            out.push_str(" A new node may come with it.");
        }
        Ok(())
    }

    /// The image is somewhere, but not beside the others.
    fn write_apart(&self, out: &mut String, why: &str) -> fmt::Result {
        let Self { image, .. } = self;
        let (considered, runner) = (self.lack.tally.considered, self.runner());
        if !self.proven && self.lack.detail != Some(Detail::MayScaleUp) {
            out.push_str("it is not known whether ");
            write!(
                out,
                "{image} is beside the other images on any of the {considered} nodes that {runner} could run on, and {why}: "
            )?;
        } else {
            write!(
                out,
                "{image} is beside the other images on none of the {considered} nodes that {runner} could run on, and {why}: "
            )?;
        }
        self.write_counts(out)
    }

    fn is_single(&self) -> bool {
        self.only_node.is_some()
    }

    const fn runner(&self) -> &'static str {
        if self.subject.is_template() { "its pods" } else { "this pod" }
    }

    fn write_counts(&self, out: &mut String) -> fmt::Result {
        let Tally {
            considered: _,
            hold,
            hold_obstructed,
            denied,
            not_listed,
            not_ready,
            readiness_unknown,
            cordoned,
            in_transition,
            list_empty,
            list_cut,
            names_cut,
            short_name,
            by_id: _,
        } = self.lack.tally;
        let mut list = Counts { out, first: true };
        if hold_obstructed > 0 {
            list.add(
                hold_obstructed,
                "holds it but has a temporary obstacle",
                "hold it but have a temporary obstacle",
            )?;
            list.out.push_str(" (");
            for (index, (node, obstacle)) in self.lack.obstructed.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(list.out, "{comma}node {node} {}", Seen(obstacle))?;
            }
            list.out.push_str(if self.lack.obstructed.len() < hold_obstructed { ", ...)" } else { ")" });
        }
        list.add(hold, "holds it", "hold it")?;
        list.add(denied, "has a kubelet that says it is not there", "have kubelets that say it is not there")?;
        list.add(not_listed, "does not list it", "do not list it")?;
        list.add(list_cut, "lists only its largest images", "list only their largest images")?;
        list.add(
            names_cut,
            "lists images with so many names that some are hidden",
            "list images with so many names that some are hidden",
        )?;
        list.add(list_empty, "lists no images at all", "list no images at all")?;
        list.add(not_ready, "is not ready", "are not ready")?;
        list.add(readiness_unknown, "has not told whether it is ready", "have not told whether they are ready")?;
        list.add(cordoned, "is cordoned and does not list it", "are cordoned and do not list it")?;
        list.add(in_transition, "is starting up or going away", "are starting up or going away")?;
        list.add(short_name, "resolves short names in its own way", "resolve short names in their own way")
    }

    fn write_misses(&self, out: &mut String) -> fmt::Result {
        for group in &self.misses.groups {
            let one = group.nodes.len() == 1;
            let (noun, verb, be) = if one { ("node", "holds", "is") } else { ("nodes", "hold", "are") };
            write!(out, "; {noun} ")?;
            for (index, node) in group.nodes.iter().enumerate() {
                write!(out, "{}{node}", if index == 0 { "" } else { ", " })?;
            }
            write!(out, " {verb} it but ")?;
            let not = if one { "does not" } else { "do not" };
            match &group.why {
                Unfit::NotOfPolicy => write!(out, "{be} not among the policy's nodes")?,
                Unfit::Excluded(exclusion) => match &**exclusion {
                    Exclusion::Taint(taint) => write!(out, "{be} tainted {taint}")?,
                    Exclusion::NodeSelector { key, value } => {
                        write!(out, "{not} match the node selector {key}={value}")?;
                    }
                    Exclusion::NodeAffinity => write!(out, "{not} match the required node affinity")?,
                    Exclusion::Os => write!(out, "{be} of another operating system")?,
                    Exclusion::OtherNode => match &self.way {
                        Way::Placed(named) => {
                            write!(out, "the pod names node {}", named.as_deref().unwrap_or_default())?;
                        }
                        Way::Bound(own) => write!(out, "the pod runs on node {own}")?,
                    },
                },
            }
        }
        match self.misses.others {
            0 => Ok(()),
            1 => out.write_str("; 1 more node that holds it cannot take the pod either"),
            others => write!(out, "; {others} more nodes that hold it cannot take the pod either"),
        }
    }
}

/// `none of the 2 nodes that this pod could run on`, `any of ...`, or the one node there is.
struct Place<'a>(&'a Evidence);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = self.0;
        let runner = evidence.runner();
        match (&evidence.way, &evidence.only_node) {
            (Way::Bound(own), _) => write!(f, "node {own}, where this pod runs"),
            (Way::Placed(_), Some(node)) => write!(f, "node {node}, the only one that {runner} could run on"),
            (Way::Placed(_), None) => {
                let absent = matches!(evidence.lack.detail, None | Some(Detail::MayScaleUp));
                let how_many = if absent { "none" } else { "any" };
                write!(f, "{how_many} of the {} nodes that {runner} could run on", evidence.lack.tally.considered)
            }
        }
    }
}

struct Counts<'a> {
    out: &'a mut String,
    first: bool,
}

impl Counts<'_> {
    fn add(&mut self, count: usize, one: &str, many: &str) -> fmt::Result {
        if count == 0 {
            return Ok(());
        }
        if !std::mem::take(&mut self.first) {
            self.out.push_str(", ");
        }
        write!(self.out, "{count} {}", if count == 1 { one } else { many })
    }
}

/// An obstacle, as a predicate.
struct Seen<'a>(&'a Obstacle);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Obstacle::NotReady => f.write_str("is not ready"),
            Obstacle::ReadinessUnknown => f.write_str("has not told whether it is ready"),
            Obstacle::Cordoned => f.write_str("is cordoned"),
            Obstacle::Young => f.write_str("has only just joined"),
            Obstacle::Taint(taint) => write!(f, "is tainted {taint}"),
        }
    }
}

pub(in crate::core) fn did_you_mean(near: &Near) -> String {
    let Near { text, node, others, .. } = near;
    match others {
        0 => format!("Did you mean {text}, on node {node}?"),
        1 => format!("Did you mean {text}, on node {node} and 1 other?"),
        others => format!("Did you mean {text}, on node {node} and {others} others?"),
    }
}

/// Our own remedy, where the operator has none.
pub(in crate::core) mod remedy {
    pub const INVALID: &str = "Correct the image reference.";
    pub const NOT_ALLOWED: &str =
        "Use an image that the policy allows, or ask its owner to add this one to allowedImages.";
    pub const ALWAYS: &str = "Set imagePullPolicy to IfNotPresent or Never.";
    pub const ABSENT: &str =
        "Load the image onto one of these nodes, or set imagePullPolicy to IfNotPresent if a registry has it.";
    pub const NOT_ON_NODES: &str = "Load the image onto one of these nodes.";
    pub const NOT_TOGETHER: &str = "Load the images onto one and the same node.";
    pub const NO_NODE: &str = "Check nodeName, nodeSelector, node affinity and tolerations.";
    pub const BY_ID: &str = "Name the image by repository and tag or digest.";
    pub const LIMIT: &str = "Set the kubelets' nodeStatusMaxImages and the policy's nodeImageLimit to -1, or list the image in preloadedImages.";
    pub const NAMES: &str = "List the image in preloadedImages if it is on every node of the policy.";
    pub const SHORT_NAME: &str = "Write the image with its registry host.";
}

/// One line: an operator's remedy or a node's label may hold line breaks, and warnings may not.
pub(in crate::core) fn clean(text: &str) -> Cow<'_, str> {
    cleaned(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

const fn is_plain(byte: u8) -> bool {
    b' ' <= byte && byte < 0x7f
}

/// `None`: it is clean as it is.
fn cleaned(text: &str) -> Option<String> {
    // Without a way out of the loop, so that the compiler looks at many bytes at a time.
    let is_clean = text.bytes().fold(true, |plain, byte| plain & is_plain(byte));
    (!is_clean).then(|| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// Cuts at a character's boundary, and shows that it did.
pub(in crate::core) fn cut(text: &mut String, bytes: usize) {
    const MARK: &str = "...";
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub(MARK.len())));
        text.push_str(MARK);
    }
}
