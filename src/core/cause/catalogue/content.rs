//! Rows of what is wrong with the image itself: its platform, its layers, its manifest, its signature.

use super::super::class::FailureClass::{CorruptImage, PlatformMismatch, SignatureInvalid};
use super::super::class::Permanence::{Permanent, Unclear};
use super::{Row, hints, outranks, status, unpacks};

/// A manifest of the first schema: the node will never read it again, whoever asks.
const OLD_FORMAT: &str =
    "Push {image} again with a current tool: its manifest is of schema 1, which the runtime no longer reads.";

#[rustfmt::skip] // A table: one row, one line.
pub(super) const ROWS: &[Row] = &[
    // PlatformMismatch
    outranks(PlatformMismatch, "no match(?:ing manifest)? for (?:platform in (?:manifest|index)|(?:#+|\\S+) in (?:the )?manifest list(?: entries)?)", "containerd images, Docker"),
    outranks(PlatformMismatch, "no match for platform", "containerd images"),
    outranks(PlatformMismatch, "no matching manifest for [^:]*", "Docker pull_v2.go"),
    outranks(PlatformMismatch, "no supported platform found in manifest list", "Docker 17"),
    outranks(PlatformMismatch, "no (?:image|manifest) found in (?:manifest list|image index|index)(?: for[^:;]*)?", "containers/image"),
    outranks(PlatformMismatch, "(?:image )?operating system (?:#+|\\S+) cannot be used on this platform", "Docker"),
    outranks(PlatformMismatch, "cannot be used on this platform", "Docker"),
    outranks(PlatformMismatch, "does(?: not|n't) (?:match|provide) the (?:specified|requested|required|host|expected) (?:platform|operating system)[^:]*", "Docker 20.10+, hcsshim"),
    outranks(PlatformMismatch, "(?:container )?operating system does not match the host operating system", "hcsshim"),
    outranks(PlatformMismatch, "(?:a windows version )?\\S*-based image is incompatible with a \\S+ host", "Docker distribution/pull_v2_windows.go"),
    outranks(PlatformMismatch, "unsupported (?:os|platform|architecture)", "Docker"),
    outranks(PlatformMismatch, "no child with platform", "go-containerregistry"),
    outranks(PlatformMismatch, "mismatched? (?:image )?(?:platform|architecture|os)\\b[^:]*", "containers/image"),
    // CorruptImage: manifests and media types
    outranks(CorruptImage, "pulling schema 1 images have been deprecated[^:]*", "containerd 2.0").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "schema ?(?:version )?1 (?:image )?manifests? (?:are|is) no longer supported[^:]*", "containerd 2.1").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "media type (?:#+|\\S+) is no longer supported[^:]*", "containerd 2.0 resolver.go").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "media-type: schema 1 not supported", "containerd images/image.go").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "docker image format v1 and docker image manifest version 2, schema 1 support is [^:]*", "Docker 26").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "pulling docker images with manifest v2 schema 1 to this repository is blocked", "Artifactory").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "error response from daemon: #+ not supported|docker manifest schema 1 is (?:not|no longer)[^:]*", "Docker with the containerd store").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "schema ?(?:version )?1 (?:images?|manifests?) (?:is|are)? ?(?:not|un|deprecated)[^:]*", "Docker, CRI-O").but(Permanent).remedy(OLD_FORMAT),
    outranks(CorruptImage, "(?:unexpected|unsupported|unknown|invalid|unrecogni[sz]ed|unhandled) ?(?:manifest |layer |config |image )?(?:media ?type|mime ?type)", "containerd images, containers/image, Docker"),
    outranks(CorruptImage, "mediatype in manifest should be .*", "Docker 19 and older, an OCI manifest"),
    outranks(CorruptImage, "unsupported image-specific operation on artifact with type", "containers/image").but(Permanent),
    outranks(CorruptImage, "unsupported schema version", "Docker"),
    outranks(CorruptImage, "encountered unknown type (?:#+|\\S+)[^:]*", "containerd 1.x handlers"),
    outranks(CorruptImage, "missing signature key", "Docker schema 1"),
    outranks(CorruptImage, "(?:manifest|target)(?: #+)? is an? (?:artifact|plugin|helm chart)[^:]*", "Docker, CRI-O"),
    outranks(CorruptImage, "(?:invalid|unsupported|unexpected|malformed) (?:image )?manifest(?: (?:type|version|format|schema|content))?", "Docker, containers/image"),
    outranks(CorruptImage, "manifest (?:is )?(?:invalid|verification failed)[^:]*", "Docker"),
    hints(CorruptImage, "invalid character .{1,4} (?:looking for beginning of|after top-level) value", "Go encoding/json on a page").but(Unclear),
    outranks(CorruptImage, "(?:no such|missing|invalid) (?:image config|rootfs|root filesystem)(?:uration)?", "Docker, containerd"),
    outranks(CorruptImage, "invalid rootfs in image configuration", "Docker pull_v2.go"),
    outranks(CorruptImage, "(?:mismatched image rootfs and manifest layers|number of layers and diffids don't match)[^:]*(?:: .*)?", "containerd unpacker.go"),
    // CorruptImage: digests and sizes
    outranks(CorruptImage, "(?:unexpected commit (?:digest|size)|failed size validation)[^:]*", "containerd content store"),
    outranks(CorruptImage, "(?:filesystem )?layer verification failed for digest", "Docker pull_v2.go"),
    outranks(CorruptImage, "(?:digest|checksum|hash|size) (?:verification failed|mismatch(?:ed)?|did not match|does not match|validation failed)", "Docker, containers/image"),
    outranks(CorruptImage, "(?:wrong diff ?id|diff ?id (?:mismatch|does not match))[^:]*", "containerd unpacker.go"),
    outranks(CorruptImage, "(?:does not match|did not match|doesn't match) (?:the )?(?:expected )?(?:config |manifest |layer |blob )?(?:digest|diffid|checksum|size|#+)", "containers/image, containers/storage"),
    outranks(CorruptImage, "(?:computed|calculated|actual|got) (?:digest|checksum|sha256) [^:]*", "containers/image, Docker"),
    outranks(CorruptImage, "(?:writer offset|read exceeds expected size|read past expected size|short read: expected)[^:]*", "containerd content helpers"),
    outranks(CorruptImage, "corrupt(?:ed)? (?:blob|layer|image|content|data|download)", "containers/image"),
    // CorruptImage: a manifest's part that the registry or the node's store lacks
    outranks(CorruptImage, "(?:could not fetch content (?:descriptor )?[^:]*? from remote|content at #blob#+)(?:: \\(unknown\\)|: not found| not found)", "containerd fetcher.go"),
    outranks(CorruptImage, "(?:blob unknown(?: to registry)?|unknown blob|blob (?:upload )?(?:not found|unknown))", "distribution error codes"),
    outranks(CorruptImage, concat!("(?:reading|fetching|copying|writing|error (?:reading|copying|fetching|writing)) (?:blob|layer|config)\\b.*", status!("404|410", "not found|gone")), "containers/image"),
    outranks(CorruptImage, concat!("#blob#+:? ?[^:]*", status!("404|410", "not found|gone")), "containerd, blob of an existing manifest"),
    outranks(CorruptImage, "(?:blob #+ expected at #+|failed to get reader from content store: content digest|content digest #+: not found|missing parent (?:#+ )?bucket|blob not found)", "containerd's own store, damaged"),
    outranks(CorruptImage, "target snapshot #+: already exists|(?:parent|target) snapshot #+ (?:does not|doesn't) exist", "containerd snapshotter, damaged"),
    // CorruptImage: unpacking
    outranks(CorruptImage, "(?:archive/tar|tar|gzip|zlib|flate|zstd|lz4): (?:invalid|corrupt|unknown|magic|unexpected|missed)[^:]*", "Go compress and archive packages"),
    outranks(CorruptImage, "(?:error )?processing tar file.*: ?(?:unexpected eof|archive/tar[^:]*|invalid tar header|.*duplicates of file paths.*)", "Docker"),
    outranks(CorruptImage, "(?:failed to (?:extract|register|unpack|apply) layer|extract layer|applylayer|untar).*(?:unexpected eof|: eof)", "containerd, Docker: a layer cut short"),
    outranks(CorruptImage, "(?:invalid tar header|duplicates of file paths not supported)", "Go archive/tar, Docker"),
    unpacks("failed to (?:register|extract|apply|unpack|convert) (?:image|layer)[^:]*", "Docker, containerd: unpacking failed"),
    unpacks("(?:failed|unable) to (?:prepare extraction snapshot|commit snapshot|stat snapshot|create snapshot|prepare snapshot)", "containerd unpacker.go"),
    unpacks("failed (?:to )?commit (?:on ref)?", "containerd content store"),
    unpacks("(?:applying layer|committing the finished image|error creating layer|applylayer|processing tar file|hcsshim::importlayer|writing blob: adding layer|adding layer with blob|storing blob to file)", "containers/storage, Docker, hcsshim"),
    unpacks("error processing tar file", "Docker"),
    unpacks("layer #+ unavailable", "soci snapshotter"),
    unpacks("get image config descriptor", "containerd image_pull.go"),
    // SignatureInvalid
    outranks(SignatureInvalid, "(?:source )?image rejected", "containers/image policy"),
    outranks(SignatureInvalid, "a signature was required, but no signature exists", "containers/image policy"),
    outranks(SignatureInvalid, "(?:image )?signature (?:validation|verification|verify) (?:failed|error)|(?:the )?signatures? (?:do|does|are|is) not satisfied", "CRI-O, kubelet, confidential containers"),
    outranks(SignatureInvalid, "signaturevalidationfailed", "CRI errors"),
    outranks(SignatureInvalid, "(?:is )?rejected by policy", "containers/image policy"),
    outranks(SignatureInvalid, "(?:invalid|no valid|no matching|cryptographic) signatures?(?: (?:verification|when validating)[^:]*)?", "sigstore, containers/image"),
    outranks(SignatureInvalid, "(?:invalid|(?:error )?loading) (?:trust |signature )?policy(?: in)?(?: #+)?", "containers/image policy that cannot be read").but(Unclear),
    outranks(SignatureInvalid, "unrecogni[sz]ed signature format[^:]*", "containers/image, a page where a signature should be").but(Unclear),
    outranks(SignatureInvalid, "image verifier #* ?(?:\\S+ )?(?:blocked|rejected|returned error)[^:]*", "containerd image verifier"),
    outranks(SignatureInvalid, "(?:image is not signed|not signed (?:in|by) \\S+)", "Harbor content trust"),
    outranks(SignatureInvalid, "(?:remote trust data does not exist|no (?:valid )?trust data|no trusted tag)[^:]*", "Docker content trust"),
];
