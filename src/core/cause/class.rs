//! The vocabulary of pull failures: what can be wrong, how lasting it is, for whom it is true, and what helps.

use std::fmt;
use std::str::FromStr;

/// The cause of a pull failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// The pull policy is `Never` and the node does not have the image.
    NeverPull,
    /// The node lists the image, but it was pulled with a secret that this pod lacks (Kubernetes 1.35+). The kubelet
    /// words it like [`Self::NeverPull`]: only the inventory tells them apart, never the text.
    NeverPullNoAccess,
    /// No runtime could ever parse or resolve the name.
    InvalidName,
    /// The registry says that there is no such repository, tag or digest.
    NotFound,
    /// The registry knows who asks, or that nobody does, and says no.
    Unauthorized,
    /// The registry will not say which of the two.
    NotFoundOrDenied,
    RateLimited,
    /// No answer came: DNS, connect, timeouts, cut connections, proxies.
    Network,
    /// The registry answered with a 5xx.
    RegistryError,
    /// The certificate or the protocol does not fit; no registry was heard.
    Tls,
    /// The image has no variant for this node.
    PlatformMismatch,
    DiskFull,
    /// What came is not what was promised: digest, size, layer, media type, manifest format.
    CorruptImage,
    /// The kubelet's own limit on pulls.
    NodeThrottle,
    /// The runtime could not say whether it has the image.
    InspectFailed,
    /// The node's policy requires a signature that the image does not have.
    SignatureInvalid,
    /// Words that nobody has taught us.
    Unknown,
}

/// How lasting a cause is, by its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permanence {
    /// A person must change something. Only if the registry answered "no", or no registry was involved.
    Permanent,
    /// May pass by itself.
    Transient,
    /// Needs time and corroboration before anything is concluded.
    Unclear,
}

/// For whom a cause is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// For this pod on this node: another node may do better.
    Node,
    /// Wherever the pods of the task land.
    Task,
}

/// A name that is no class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown failure class {0:?}")]
pub struct UnknownClass(pub String);

impl FailureClass {
    /// Every class, in the order of the design.
    pub const ALL: [Self; 17] = [
        Self::NeverPull,
        Self::NeverPullNoAccess,
        Self::InvalidName,
        Self::NotFound,
        Self::Unauthorized,
        Self::NotFoundOrDenied,
        Self::RateLimited,
        Self::Network,
        Self::RegistryError,
        Self::Tls,
        Self::PlatformMismatch,
        Self::DiskFull,
        Self::CorruptImage,
        Self::NodeThrottle,
        Self::InspectFailed,
        Self::SignatureInvalid,
        Self::Unknown,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverPull => "NeverPull",
            Self::NeverPullNoAccess => "NeverPullNoAccess",
            Self::InvalidName => "InvalidName",
            Self::NotFound => "NotFound",
            Self::Unauthorized => "Unauthorized",
            Self::NotFoundOrDenied => "NotFoundOrDenied",
            Self::RateLimited => "RateLimited",
            Self::Network => "Network",
            Self::RegistryError => "RegistryError",
            Self::Tls => "Tls",
            Self::PlatformMismatch => "PlatformMismatch",
            Self::DiskFull => "DiskFull",
            Self::CorruptImage => "CorruptImage",
            Self::NodeThrottle => "NodeThrottle",
            Self::InspectFailed => "InspectFailed",
            Self::SignatureInvalid => "SignatureInvalid",
            Self::Unknown => "Unknown",
        }
    }

    /// For whom a failure of this class is true.
    pub const fn scope(self) -> Scope {
        match self {
            Self::NeverPull
            | Self::NeverPullNoAccess
            | Self::PlatformMismatch
            | Self::DiskFull
            | Self::CorruptImage
            | Self::NodeThrottle
            | Self::InspectFailed => Scope::Node,
            Self::InvalidName
            | Self::NotFound
            | Self::Unauthorized
            | Self::NotFoundOrDenied
            | Self::RateLimited
            | Self::Network
            | Self::RegistryError
            | Self::Tls
            | Self::SignatureInvalid
            | Self::Unknown => Scope::Task,
        }
    }

    /// The permanence of a class where its evidence says no more. A row of the catalogue may say otherwise.
    pub const fn permanence(self) -> Permanence {
        match self {
            Self::NeverPull
            | Self::InvalidName
            | Self::NotFound
            | Self::Unauthorized
            | Self::PlatformMismatch
            | Self::SignatureInvalid => Permanence::Permanent,
            // Tls: a person must nearly always mend the certificate or the node's trust in it, but the registry itself
            // has not said no, and a proxy or an ingress that is starting shows a wrong certificate for a while.
            Self::NeverPullNoAccess
            | Self::NotFoundOrDenied
            | Self::Tls
            | Self::DiskFull
            | Self::CorruptImage
            | Self::InspectFailed => Permanence::Unclear,
            Self::RateLimited | Self::Network | Self::RegistryError | Self::NodeThrottle | Self::Unknown => {
                Permanence::Transient
            }
        }
    }

    /// Whether an outage of the registry could look like this, so that the brake of its host counts it and holds it. What is
    /// the node's own trouble goes through the node's brake alone.
    pub const fn goes_through_brake(self) -> bool {
        match self {
            Self::NeverPull
            | Self::NeverPullNoAccess
            | Self::InvalidName
            | Self::PlatformMismatch
            | Self::DiskFull
            | Self::NodeThrottle
            | Self::InspectFailed => false,
            Self::NotFound
            | Self::Unauthorized
            | Self::NotFoundOrDenied
            | Self::RateLimited
            | Self::Network
            | Self::RegistryError
            | Self::Tls
            | Self::CorruptImage
            | Self::SignatureInvalid
            | Self::Unknown => true,
        }
    }

    /// The class in a few words, for people.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::NeverPull => "the pull policy is Never and the image is not on the node",
            Self::NeverPullNoAccess => "the image is on the node, but was pulled with a secret that this pod lacks",
            Self::InvalidName => "the image name is not valid",
            Self::NotFound => "the registry has no such image",
            Self::Unauthorized => "the registry refuses access",
            Self::NotFoundOrDenied => "the registry has no such image, or refuses access to it",
            Self::RateLimited => "the registry limits the rate of pulls",
            Self::Network => "the registry could not be reached",
            Self::RegistryError => "the registry failed",
            Self::Tls => "the registry's certificate or protocol is not accepted",
            Self::PlatformMismatch => "the image has no variant for the node's platform",
            Self::DiskFull => "the node's disk is full",
            Self::CorruptImage => "the image's content cannot be used",
            Self::NodeThrottle => "the kubelet limits its own pulls",
            Self::InspectFailed => "the runtime could not look the image up",
            Self::SignatureInvalid => "the image's signature is missing or not accepted",
            Self::Unknown => "the cause of the pull failure is not known",
        }
    }

    /// What a person should do, with `{image}` where the image's name goes.
    const fn advice(self) -> &'static str {
        match self {
            Self::NeverPull => {
                "Load {image} onto the nodes that this pod can run on, or use another imagePullPolicy than Never."
            }
            Self::NeverPullNoAccess => {
                "Give the pod the imagePullSecret that {image} was pulled with, or load the image onto the node by hand."
            }
            Self::InvalidName => "Correct the image name {image}: no kubelet can use it.",
            Self::NotFound => {
                "Check the repository and tag of {image}, or push the image: the registry does not have it."
            }
            Self::Unauthorized => {
                "Check the imagePullSecrets of the pod and its service account, and that they may read {image}."
            }
            Self::NotFoundOrDenied => {
                "Check the spelling of {image}; if it is private, give the pod an imagePullSecret that may read it."
            }
            Self::RateLimited => "Wait, authenticate with an imagePullSecret, or use a mirror for {image}.",
            Self::Network => "Check DNS, proxy, firewall and the reach of the registry of {image} from the node.",
            Self::RegistryError => "Wait for the registry of {image} to recover, or ask whoever runs it.",
            Self::Tls => {
                "Renew the certificate of the registry of {image}, or make the node's runtime trust its CA; for a \
                 registry without TLS, configure it as insecure in the runtime."
            }
            Self::PlatformMismatch => {
                "Build {image} for the node's platform, or select nodes of the image's platform (kubernetes.io/arch, \
                 kubernetes.io/os)."
            }
            Self::DiskFull => "Free disk space on the node, or give it more: {image} could not be stored.",
            Self::CorruptImage => {
                "Pull {image} elsewhere to compare; if it fails there too, push it again in a current format, else \
                 clean the node's image store."
            }
            Self::NodeThrottle => "Wait; if it lasts, raise the kubelet's registryPullQPS and registryBurst.",
            Self::InspectFailed => {
                "Check the container runtime of the node and its registries configuration for {image}."
            }
            Self::SignatureInvalid => "Sign {image} with a key that the node's policy trusts, or correct that policy.",
            Self::Unknown => "Read the message and the events of the pod for {image}.",
        }
    }

    /// What a person should do, naming the image where it is known.
    pub fn remedy(self, image: Option<&str>) -> String {
        fill(self.advice(), image)
    }
}

/// Puts the image's name into an advice.
pub(super) fn fill(advice: &str, image: Option<&str>) -> String {
    advice.replace("{image}", image.unwrap_or("the image"))
}

impl Permanence {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "Permanent",
            Self::Transient => "Transient",
            Self::Unclear => "Unclear",
        }
    }

    /// The same, but never more than unclear.
    pub(super) const fn max_unclear(self) -> Self {
        match self {
            Self::Permanent | Self::Unclear => Self::Unclear,
            Self::Transient => Self::Transient,
        }
    }
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Task => "Task",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Permanence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FailureClass {
    type Err = UnknownClass;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|class| class.as_str() == name).ok_or_else(|| UnknownClass(name.to_owned()))
    }
}
