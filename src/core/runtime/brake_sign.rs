//! A brake that is on, as a policy's status says it and as it is read there again.
//!
//! Enters: reports of brakes, or the text of a status. Leaves: the text, or which brake it is. One place for both, so that
//! whoever explains a pod understands what the leader has written.

use std::fmt;

use super::super::cause::FailureClass;
use super::brake::{BrakeReport, Level, Place, goes_through_node_brake};

/// A brake that is on. `Display` is what the status of a policy that it concerns holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrakeSign {
    pub place: Place,
    pub level: Level,
}

const REGISTRY: &str = "registry ";
const NODE: &str = "node ";
/// A policy's own brake stands in its own status, without its name.
const DENIED_JOBS: &str = "denied Jobs";

impl BrakeSign {
    /// What a policy's status is to say: registries and nodes concern every policy, a policy's own brake that one alone.
    pub fn for_policy(report: &BrakeReport, policy: &str) -> Option<Self> {
        let concerns = match &report.place {
            Place::Registry(_) | Place::Node(_) => true,
            Place::Policy(name) => name == policy,
        };
        concerns.then(|| Self { place: report.place.clone(), level: report.level })
    }

    /// Reads what the status of this policy says. `None`: it is no such text.
    pub fn parse(text: &str, policy: &str) -> Option<Self> {
        // A host may have a port, so it is the last colon that counts.
        let (what, level) = text.rsplit_once(": ")?;
        let level = [Level::Suspect, Level::Outage].into_iter().find(|known| known.as_str() == level)?;
        let place = if let Some(host) = what.strip_prefix(REGISTRY) {
            Place::Registry(host.to_owned())
        } else if let Some(node) = what.strip_prefix(NODE) {
            Place::Node(node.to_owned())
        } else if what == DENIED_JOBS {
            Place::Policy(policy.to_owned())
        } else {
            return None;
        };
        Some(Self { place, level })
    }

    /// What it means for a failure of this class, of an image of this registry, on this node; `None`: nothing.
    pub fn means_for(&self, class: FailureClass, registry: Option<&str>, node: Option<&str>) -> Option<String> {
        let concerns = match &self.place {
            Place::Registry(host) => registry == Some(host) && class.goes_through_brake(),
            // Whether a node has lost an image of late only the leader knows: a `NeverPull` is taken for the task's trouble.
            Place::Node(name) => node == Some(name) && goes_through_node_brake(Some(class), false),
            // Of Jobs whose pods are denied: this one was created.
            Place::Policy(_) => false,
        };
        let what = match self.level {
            Level::Normal => return None,
            Level::Suspect => "it is suspect, so what is not a clear no waits until that is over",
            Level::Outage => "it is out, so nothing is declared permanent and nothing is deleted until that is over",
        };
        concerns.then(|| format!("the brake is on for {}: {what}", self.what()))
    }

    fn what(&self) -> String {
        match &self.place {
            Place::Registry(host) => format!("{REGISTRY}{host}"),
            Place::Node(node) => format!("{NODE}{node}"),
            Place::Policy(_) => DENIED_JOBS.to_owned(),
        }
    }
}

impl fmt::Display for BrakeSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.level.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let registry = |host: &str| Place::Registry(host.to_owned());
        for place in
            [registry("docker.io"), registry("[::1]:5000"), Place::Node("node-a".into()), Place::Policy("p".into())]
        {
            for level in [Level::Suspect, Level::Outage] {
                let sign = BrakeSign { place: place.clone(), level };
                assert_eq!(BrakeSign::parse(&sign.to_string(), "p"), Some(sign));
            }
        }
        for text in ["", "docker.io", "registry docker.io", "registry docker.io: Normal", "moon: Outage"] {
            assert_eq!(BrakeSign::parse(text, "p"), None, "{text}");
        }
    }
}
