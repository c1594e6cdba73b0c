//! Rows of what happens on the node itself: no registry was asked, or it was not its fault.

use super::super::class::FailureClass::{DiskFull, InspectFailed, InvalidName, Network, NeverPull, NodeThrottle};
use super::super::class::Permanence::{Permanent, Transient};
use super::{Row, decides, hints, outranks};

#[rustfmt::skip] // A table: one row, one line.
pub(super) const ROWS: &[Row] = &[
    // NeverPull
    outranks(NeverPull, "is not present with pull policy of never", "kubelet image_manager.go"),
    outranks(NeverPull, "errimageneverpull", "kubelet types.go"),
    // InvalidName
    outranks(InvalidName, "invalid reference format", "distribution/reference"),
    outranks(InvalidName, "couldn't parse image (?:reference|name)", "kubelet image_manager.go, parsers"),
    outranks(InvalidName, "invalid image name", "kubelet, Docker"),
    outranks(InvalidName, "repository name (?:#+ |\\(#*\\) |[(][^)]*[)] )?must be (?:lowercase|canonical)", "distribution/reference"),
    outranks(InvalidName, "repository name must (?:not be more|have at least one)[^:]*", "distribution/reference"),
    outranks(InvalidName, "(?:could not|failed to|cannot|can't|unable to) parse (?:docker |image |container )?(?:image |reference)(?: ?name| ?reference)?", "containerd image_pull.go, containers/image"),
    outranks(InvalidName, "invalid (?:repository|namespace|tag) name", "Docker 1.x registry/session.go"),
    outranks(InvalidName, "is not a valid repository/?(?:/tag)?", "Docker reference errors"),
    outranks(InvalidName, "(?:invalid checksum digest (?:length|format)|unsupported digest algorithm|invalid digest format)", "opencontainers/go-digest"),
    outranks(InvalidName, "reference is missing (?:a )?(?:name|tag|digest)[^:]*", "Docker, cri-containerd"),
    outranks(InvalidName, "cannot specify 64-byte hexadecimal strings", "distribution/reference"),
    decides(InvalidName, "(?:object|hostname) required", "containerd pkg/reference"),
    decides(InvalidName, "did not resolve to an alias(?: and no (?:unqualified-search|containers-registries)[^:;]*)?", "containers/image shortnames").remedy("Write {image} with its registry host (docker.io/library/...), or set unqualified-search-registries on the node."),
    decides(InvalidName, "short-name resolution enforced but cannot prompt without a tty", "containers/image shortnames").remedy("Write {image} with its registry host (docker.io/library/...): on the node the short name is ambiguous."),
    decides(InvalidName, "no registries configured while trying to pull an unqualified image", "CRI-O 1.10").remedy("Write {image} with its registry host (docker.io/library/...), or set search registries on the node."),
    decides(InvalidName, "short ?name mode is enforcing, but image name (?:#+|\\S+) returns ambiguous list", "CRI-O 1.34").remedy("Write {image} with its registry host: on the node the short name is ambiguous."),
    // InspectFailed
    decides(InspectFailed, "unable to convert a nil pointer to a runtime api image", "dockershim").but(Permanent),
    // NodeThrottle
    outranks(NodeThrottle, "pull qps exceeded", "kubelet images/helpers.go"),
    // DiskFull
    outranks(DiskFull, "no space left on device", "ENOSPC"),
    outranks(DiskFull, "(?:not enough|insufficient|there is not enough) (?:free )?(?:disk )?space(?: on the disk)?", "Windows, containers/storage"),
    outranks(DiskFull, "disk quota exceeded", "EDQUOT"),
    outranks(DiskFull, "thin pool has \\d+ free data blocks which is less than minimum required", "Docker devicemapper"),
    outranks(DiskFull, "(?:the )?disk is full", "Windows"),
    // The runtime itself does not answer: as good as no network.
    decides(Network, "cannot connect to the docker daemon", "dockershim").but(Transient),
    hints(Network, "transport is closing", "gRPC").but(Transient),
];
