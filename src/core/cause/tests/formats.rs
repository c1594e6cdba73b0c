//! Wordings after the sources of runtimes and registries, in the wrappings of kubelets of all ages.

use super::super::{FailureClass, Permanence};
use super::cause;

/// Formats of the sources that no real message of the files has: (class, permanence, cause).
#[rustfmt::skip] // A table: one row, one line.
const FORMATS: &[(FailureClass, Permanence, &str)] = {
    use FailureClass::{
        CorruptImage, DiskFull, InvalidName, Network, NotFound, NotFoundOrDenied, PlatformMismatch, RateLimited,
        RegistryError, SignatureInvalid, Tls, Unauthorized, Unknown,
    };
    use Permanence::{Permanent, Transient, Unclear};
    &[
        // The registry's answer, in all the shapes of containerd and Docker
        (
            NotFound,
            Permanent,
            r#"failed to resolve reference "r.io/a/b:1": unexpected status code [manifests 1]: 404 Not Found"#,
        ),
        (NotFound, Permanent, r#"failed to resolve image: r.io/a/b:1: not found"#),
        (NotFound, Permanent, "reading manifest 1 in r.io/a/b: name unknown: repository a/b not found"),
        (
            NotFound,
            Permanent,
            "name unknown: The repository with name 'a/b' does not exist in the registry with id '123456789012'",
        ),
        (NotFound, Permanent, "manifest unknown: Requested image not found"),
        (
            NotFound,
            Permanent,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#,
        ),
        (NotFound, Permanent, "unknown: Artifact a/b:1 not found"),
        (NotFound, Unclear, "something never seen before: not found"),
        (
            Unauthorized,
            Permanent,
            "failed to resolve image: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        ),
        (
            Unauthorized,
            Permanent,
            "unexpected status from HEAD request to http://127.0.0.1:5000/v2/team/app2/manifests/1: 401 Unauthorized",
        ),
        (Unauthorized, Permanent, r#"denied: Permission denied for "latest" from request "/v2/a/b/manifests/latest"."#),
        (
            Unauthorized,
            Unclear,
            "failed to copy: httpReadSeeker: failed open: unexpected status code https://cdn.r.io/v2/a/b/blobs/sha256:0123abcd: 403 Forbidden",
        ),
        (Unauthorized, Unclear, "reading blob sha256:0123abcd: fetching blob: StatusCode: 403, \"<?xml version=...\""),
        (Unauthorized, Unclear, "unauthorized"),
        (
            NotFoundOrDenied,
            Unclear,
            r#"failed to resolve reference "docker.io/a/b:1": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#,
        ),
        (NotFoundOrDenied, Unclear, "reading manifest 1 in docker.io/a/b: requested access to the resource is denied"),
        // Transient words around permanent ones, and the reverse
        (
            RegistryError,
            Transient,
            r#"failed to authorize: failed to fetch oauth token: unexpected status: 503 Service Unavailable"#,
        ),
        (
            RegistryError,
            Transient,
            "unexpected status code https://r.io/v2/a/b/manifests/1: 503 Service Unavailable: <html><title>404 Not Found</title>unauthorized</html>",
        ),
        (RegistryError, Transient, "received unexpected HTTP status: 502 Bad Gateway: manifest unknown"),
        (RegistryError, Transient, "unexpected http status 521"),
        (
            Network,
            Transient,
            r#"failed to authorize: failed to fetch oauth token: Post "https://auth.r.io/token": net/http: TLS handshake timeout"#,
        ),
        (
            Network,
            Transient,
            r#"Head "https://r.io/v2/a/b/manifests/1": http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR"#,
        ),
        (Network, Transient, "read tcp 10.0.0.1:1->10.0.0.2:443: use of closed network connection"),
        (Network, Transient, "dial tcp 10.0.0.1:443: connect: permission denied"),
        (
            Network,
            Transient,
            "dial tcp 10.0.0.1:443: connectex: A connection attempt failed because the connected party did not properly respond after a period of time",
        ),
        (
            Network,
            Transient,
            r#"connection error: desc = "transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: no such file or directory""#,
        ),
        (
            RateLimited,
            Transient,
            "denied: Quota exceeded for quota metric 'Requests per project per region' and limit 'Requests per project per region per minute per region'",
        ),
        (
            RateLimited,
            Transient,
            r#"error parsing HTTP 429 response body: invalid character 'T' looking for beginning of value: "Too Many Requests (HAP429)""#,
        ),
        (
            Unauthorized,
            Permanent,
            "reading manifest 1 in r.io/a/b: (Mirrors also failed: [m.io/a/b:1: received unexpected HTTP status: 503 Service Unavailable]): r.io/a/b:1: unauthorized: authentication required",
        ),
        (
            Network,
            Transient,
            r#"unable to pull image or OCI artifact: pull image err: pinging container registry r.io: Get "https://r.io/v2/": dial tcp: lookup r.io: i/o timeout; artifact err: get manifest: 404 Not Found"#,
        ),
        (
            NotFound,
            Permanent,
            r#"unable to pull image or OCI artifact: pull image err: reading manifest 1 in r.io/a/b: manifest unknown; artifact err: get manifest: dial tcp: i/o timeout"#,
        ),
        // Several credentials: the most hopeful error counts
        (
            RateLimited,
            Transient,
            r#"[failed to pull and unpack image "r.io/a": unexpected status: 429 Too Many Requests, failed to pull and unpack image "r.io/a": unexpected status: 401 Unauthorized]"#,
        ),
        (
            NotFound,
            Permanent,
            r#"[rpc error: code = Unknown desc = a: 401 Unauthorized, rpc error: code = NotFound desc = failed to resolve reference "r.io/a": r.io/a: not found]"#,
        ),
        // Content
        (
            PlatformMismatch,
            Permanent,
            r#"choosing an image from manifest list docker://r.io/a/b:1: no image found in image index for architecture "arm64", variant "v8", OS "linux""#,
        ),
        (
            CorruptImage,
            Unclear,
            r#"failed to extract layer sha256:01: failed to get reader from content store: content digest sha256:01: not found"#,
        ),
        (
            CorruptImage,
            Unclear,
            "failed to copy: httpReadSeeker: failed open: content at https://r.io/v2/a/b/blobs/sha256:01 not found: not found",
        ),
        (
            CorruptImage,
            Unclear,
            "failed to copy: httpReadSeeker: failed open: unexpected status code https://r.io/v2/a/b/blobs/sha256:01: 404 Not Found",
        ),
        (CorruptImage, Unclear, "failed to extract layer sha256:01: archive/tar: invalid tar header: unknown"),
        (CorruptImage, Unclear, "mismatched image rootfs and manifest layers"),
        (CorruptImage, Unclear, r#"wrong diff id "sha256:01" calculated on extraction "sha256:02", desc "sha256:03""#),
        (CorruptImage, Unclear, r#"target snapshot "sha256:01": already exists"#),
        (CorruptImage, Permanent, "schema 1 image manifests are no longer supported: invalid argument"),
        (SignatureInvalid, Permanent, "Source image rejected: Invalid GPG signature"),
        (
            SignatureInvalid,
            Permanent,
            r#"image verifier bindir blocked pull of r.io/a:1 with digest sha256:01 for reason: no"#,
        ),
        (SignatureInvalid, Permanent, "Source image rejected: Running image docker://r.io/a:1 is rejected by policy."),
        (DiskFull, Unclear, "hcsshim::ImportLayer failed in Win32: There is not enough space on the disk. (0x70)"),
        (DiskFull, Unclear, "failed to copy: write /var/lib/containerd/ingest/0/data: disk quota exceeded"),
        (InvalidName, Permanent, r#"failed to parse image reference "a//b": invalid reference format"#),
        (
            InvalidName,
            Permanent,
            r#"short-name "a:1" did not resolve to an alias and no unqualified-search registries are defined in "/etc/containers/registries.conf""#,
        ),
        (Tls, Unclear, "x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs"),
        (Tls, Unclear, "tls: failed to verify certificate: x509: certificate is valid for ingress.local, not r.io"),
        (Tls, Transient, "remote error: tls: internal error"),
        // Codes and pages without words, and what a certificate needs
        (Unauthorized, Permanent, r"Error response from daemon: error from registry: denied\ndenied"),
        (Unauthorized, Permanent, r#"Error response from daemon: {"message":"unauthorized"}"#),
        (Unauthorized, Unclear, r#"error parsing HTTP 403 response body: unexpected end of JSON input: """#),
        (NotFound, Unclear, r#"error parsing HTTP 404 response body: unexpected end of JSON input: """#),
        (NotFound, Unclear, "pinging container registry r.io: invalid status code from registry 404 (Not Found)"),
        (RegistryError, Transient, "unexpected status code [manifests 1]: 307 Temporary Redirect"),
        (Tls, Unclear, "open /etc/docker/certs.d/r.io/ca.crt: no such file or directory"),
        (Tls, Unclear, "missing client certificate client.cert for key client.key"),
        (RegistryError, Transient, r"API error (500): Server error: 503 trying to fetch remote history for a/b\n"),
        (NotFound, Permanent, "API error (500): Server error: 404 trying to fetch remote history for a/b"),
        (Network, Transient, "API error (500): Could not reach any registry endpoint"),
        // A policy of the registry, which a scan may yet satisfy
        (
            Unauthorized,
            Unclear,
            "unknown: Artifact download request rejected: a/manifest.json was not downloaded due to the download blocking policy configured in Xray for docker-local.",
        ),
        // With one of two credentials the next try may succeed, and what was let in got further
        (
            Network,
            Transient,
            r#"[unable to pull image or OCI artifact: pull image err: reading manifest 1 in r.io/a: unauthorized: no; artifact err: get manifest: unauthorized, unable to pull image or OCI artifact: pull image err: pinging container registry r.io: Get "https://r.io/v2/": dial tcp 10.0.0.1:443: i/o timeout; artifact err: get manifest: unauthorized]"#,
        ),
        (
            CorruptImage,
            Unclear,
            r#"[failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://r.io/token: 401 Unauthorized, rpc error: code = NotFound desc = failed to copy: httpReadSeeker: failed open: could not fetch content descriptor sha256:01 (application/vnd.oci.image.layer.v1.tar+gzip) from remote: not found]"#,
        ),
        // Numbers that are no status, words that are no cause
        (
            Unknown,
            Transient,
            "tag 404 of r.io:5000/a/b:401 with sha256:4034044015031111111111111111111111111111111111111111111111111111 and 500 bytes",
        ),
        (Unknown, Transient, "rpc error: code = NotFound desc = well"),
        (Unknown, Transient, "rpc error: code = Unauthenticated desc = well"),
        (
            Unknown,
            Transient,
            "image pull failed for a, this may be because there are no credentials on this request. details: (well)",
        ),
        (Unknown, Transient, "the moon is in the wrong house"),
    ]
};

#[test]
fn formats_of_the_sources_are_known_in_every_wrapping() {
    for (class, permanence, text) in FORMATS {
        for (reason, message) in wrapped(text) {
            let cause = cause(reason, &message);
            assert_eq!((cause.class, cause.permanence), (*class, *permanence), "{message}\n{cause:?}");
        }
    }
}

/// A cause, in the wrappings of kubelets of all ages.
pub(super) fn wrapped(text: &str) -> Vec<(&'static str, String)> {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
    vec![
        ("ErrImagePull", text.to_owned()),
        ("errimagepull", format!("rpc error: code = Unknown desc = {text}")),
        ("ErrImagePull", format!("rpc error: code = 2 desc = {text}")),
        ("Failed", format!("Failed to pull image \"r.io/a/b:1\": rpc error: code = DeadlineExceeded desc = {text}")),
        ("Failed", format!("spec.containers{{unauthorized-not-found}}: Failed to pull image \"r.io/a/b:1\": {text}")),
        ("ImagePullBackOff", format!("Back-off pulling image \"r.io/a/b:1\": ErrImagePull: {text}")),
        (
            "FailedSync",
            format!(
                "Error syncing pod, skipping: failed to \"StartContainer\" for \"eof\" with ErrImagePull: \"{escaped}\""
            ),
        ),
        (
            "FailedSync",
            format!(
                "Error syncing pod, skipping: [failed to \"StartContainer\" for \"a\" with CrashLoopBackOff: \"Back-off 5m0s\", failed to \"StartContainer\" for \"b\" with ErrImagePull: \"{escaped}\"]"
            ),
        ),
        ("", format!("Failed to pull image \"r.io/a/b:1\": {}", text.to_ascii_lowercase())),
    ]
}
