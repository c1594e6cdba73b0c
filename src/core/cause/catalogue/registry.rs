//! Rows of what a registry answers: no such thing, no access, not now.

use super::super::class::FailureClass::{
    Network, NotFound, NotFoundOrDenied, RateLimited, RegistryError, Unauthorized,
};
use super::super::class::Permanence::{Transient, Unclear};
use super::{Row, decides, hints, outranks, status};

const WHOSE_PROXY: &str =
    "The proxy between the node and the registry of {image} refuses: check the runtime's proxy settings.";

#[rustfmt::skip] // A table: one row, one line.
pub(super) const ROWS: &[Row] = &[
    // RateLimited
    outranks(RateLimited, "toomanyrequests", "distribution error code, Docker Hub, ECR"),
    outranks(RateLimited, status!("429", "too many requests|unknown"), "HTTP"),
    outranks(RateLimited, "too ?many ?requests", "HTTP"),
    outranks(RateLimited, "(?:pull |request |api )?rate ?limit(?:s|ed|ing)?", "Docker Hub, Quay, Artifactory"),
    outranks(RateLimited, "rate (?:limit )?exceeded", "ECR"),
    outranks(RateLimited, "quota exceeded", "Artifact Registry, Artifactory"),
    outranks(RateLimited, "throttl(?:ed|ing|ingexception)", "ECR, ACR"),
    // RegistryError
    outranks(RegistryError, status!("5\\d\\d", "internal server error|not implemented|bad gateway|service (?:temporarily )?unavailable|gateway time-?out|gateway timeout|proxy error|server error|backend fetch failed|unknown|origin [a-z ]*|web server [a-z ]*|connection timed out|loop detected|insufficient storage|<none>|ok"), "HTTP"),
    outranks(RegistryError, "received unexpected http status: 5\\d\\d.*", "Docker distribution client, containers/image"),
    decides(RegistryError, "(?:internal server error|service unavailable|temporarily unavailable|no healthy upstream)", "proxies, registries"),
    decides(RegistryError, "unknown: (?:unknown error|internal(?: server)? error|service unavailable)", "distribution error code UNKNOWN"),
    decides(RegistryError, "registryunavailable", "CRI errors"),
    // Redirections that nobody followed, and the other 4xx, are neither "no such thing" nor "no access": a registry or a proxy that does not speak well.
    decides(RegistryError, status!("30[0-8]|400|405|406|409|413|415|416|418|421|422|423|424|425|426|428|431|444|499", "multiple choices|moved permanently|found|see other|temporary redirect|permanent redirect|bad request|method not allowed|not acceptable|conflict|payload too large|request entity too large|unsupported media type|(?:requested )?range not satisfiable|i'm a teapot|misdirected request|unprocessable (?:entity|content)"), "HTTP").but(Transient),
    decides(RegistryError, "(?:error parsing http )4(?:00|05|06|09|13|15|16|22) response body.*", "Docker distribution client").but(Transient),
    // Proxies: Go's client reports the answer to CONNECT as its bare phrase, right after the URL.
    decides(Network, r"(?:get|head|post|put) #+: (?:bad gateway|forbidden|service unavailable|proxy authentication required|gateway timeout|bad request|internal server error)", "Go net/http, CONNECT refused by a proxy").remedy(WHOSE_PROXY),
    decides(Network, status!("407", "proxy authentication required"), "HTTP proxy").remedy(WHOSE_PROXY),
    decides(Network, status!("408", "request time-?out"), "HTTP"),
    decides(Network, "(?:error parsing http )40[78] response body.*", "Docker distribution client"),
    decides(RegistryError, "(?:bad gateway|gateway time-?out)", "proxies"),
    // NotFoundOrDenied: words that say both
    decides(NotFoundOrDenied, "(?:repository|project) (?:#+ )?does not exist or may require(?: 'docker login'| authorization)?", "Docker, containerd resolver.go"),
    decides(NotFoundOrDenied, "pull access denied[^:]*", "Docker, containerd"),
    // Docker's guess stays, unless the registry's words after it are plainer (an expired token, a named permission).
    decides(NotFoundOrDenied, "or may require 'docker login': denied: (?:permission_denied|denied|access forbidden|access denied)[^:]*(?:: .*)?", "GHCR and others behind Docker's guess"),
    decides(NotFoundOrDenied, "not found: does not exist or no (?:pull|read)? ?access", "Docker 17"),
    decides(NotFoundOrDenied, "does not exist or no (?:pull |read )?access", "Docker 17"),
    decides(NotFoundOrDenied, "may not exist or (?:you )?may (?:not|require)[^:]*", "Docker, Bintray"),
    decides(NotFoundOrDenied, "\\(?or (?:it|the image|the repository) may not exist", "Artifact Registry"),
    decides(NotFoundOrDenied, "requested access to the resource is denied(?:[,;]? ?(?:errors?: ?)?unauthorized: authentication required)?", "Docker Hub's DENIED, for what is missing as for what is private"),
    decides(NotFoundOrDenied, "(?:please )?verify that it exists and you have permission[^:]*", "GCR"),
    decides(NotFoundOrDenied, "insufficient_scope(?:: authorization failed)?", "containerd authorizer.go"),
    decides(NotFoundOrDenied, "(?:not found or (?:access denied|unauthorized|not authorized|no access|permission denied)|unauthorized or not found|does not exist or (?:access|permission|you)[^:]*)", "GitLab, Quay"),
    // Unauthorized
    decides(Unauthorized, status!("401", "unauthorized|unauthorised|authorization required|authentication required"), "HTTP"),
    decides(Unauthorized, status!("403", "forbidden"), "HTTP"),
    // A signed URL that ran out, an object store behind a firewall: the registry itself said yes before.
    decides(Unauthorized, concat!("#blob#+:? ?[^:]*", status!("40[13]", "unauthorized|forbidden")), "blob storage").but(Unclear),
    decides(Unauthorized, concat!("(?:reading|fetching|copying|writing) (?:blob|layer|config)\\b.*", status!("40[13]", "unauthorized|forbidden")), "blob storage").but(Unclear),
    // The same of anything that is fetched after the image was resolved: the registry had said yes.
    decides(Unauthorized, concat!("httprea\\w+: failed open: .*", status!("40[13]", "unauthorized|forbidden")), "containerd httpreadseeker.go").but(Unclear),
    decides(Unauthorized, status!("402|412|451", "payment required|precondition failed|unavailable for legal reasons"), "HTTP").but(Unclear),
    decides(Unauthorized, "(?:unauthorized|unauthorised): [^:]*", "distribution error code UNAUTHORIZED"),
    decides(Unauthorized, "authentication (?:is )?required|authorize header needed[^:]*", "distribution, Harbor"),
    decides(Unauthorized, "no basic auth credentials", "Docker, containerd authorizer.go"),
    decides(Unauthorized, "(?:incorrect|invalid|bad|wrong) (?:username or password|username/password|user ?name/password|user/password|credentials|login)", "Docker Hub, Quay"),
    decides(Unauthorized, "(?:unable to retrieve auth token|authorization token has expired|token (?:has |is )?expired|expired token|invalid_token|invalid token|security token included in the request is (?:invalid|expired))", "containers/image, ECR"),
    decides(Unauthorized, "not authorized(?: to [^:]*(?::\\w+)?.*)?", "ECR, Quay"),
    decides(Unauthorized, "unauthenticated requests?[^:]*", "Artifact Registry"),
    decides(Unauthorized, r#"(?:get|head) #+: (?:unauthorized|denied)|error (?:response from daemon|from registry): (?:\{"message":")?(?:unauthorized unauthorized|denied denied|(?:unauthorized|denied)["}\] ]*$)"#, "Docker, an error code without words"),
    decides(Unauthorized, "(?:you )?(?:don't|do not|does not|doesn't) have (?:the )?(?:needed |required |necessary )?permissions?[^:]*", "GCR"),
    decides(Unauthorized, "denied: (?:denied|anonymous users are only allowed|access forbidden|access denied|permission|unauthenticated request|your authorization token|the )", "GHCR, GitLab, GCR, ECR"),
    decides(Unauthorized, "(?:login|log in) (?:required|attempt[^:]*failed)", "registries"),
    decides(Unauthorized, "(?:error getting credentials|failed to get credentials|failed to find supported auth scheme|error while fetching credentials)[^:]*", "credential helpers").but(Unclear),
    decides(Unauthorized, "missing username or secret", "containerd authorizer.go"),
    // A policy of the registry: it may be that the scan of the image has only to end.
    decides(Unauthorized, "projectpolicyviolation|cannot be pulled due to configured policy.*", "Harbor").but(Unclear),
    decides(Unauthorized, "(?:artifact )?download request rejected.*|.* download blocking policy.*", "JFrog Xray").but(Unclear),
    hints(Unauthorized, "(?:unauthorized|authorization failed|forbidden|access (?:to [^:]* )?(?:is )?(?:denied|forbidden))", "bare words").but(Unclear),
    hints(Unauthorized, "denied: [^:]*", "distribution error code DENIED").but(Unclear),
    // NotFound
    decides(NotFound, "manifest[ _]unknown(?:: [^:]*)?", "distribution error code MANIFEST_UNKNOWN"),
    decides(NotFound, "name[ _]unknown(?:: [^:]*)?", "distribution error code NAME_UNKNOWN"),
    decides(NotFound, "manifest_unknown|name_unknown", "the same, in JSON"),
    decides(NotFound, "manifest(?: for #+| #+| \\S+)? (?:not found|does not exist|is unknown)(?:: manifest unknown)?", "Docker"),
    decides(NotFound, "(?:image|repository|repo|tag|artifact|project)(?: name)?(?: #+| \\S+)? (?:is )?(?:not found|does not exist|doesn't exist|cannot be found|could not be found)(?: in (?:the )?(?:repository|registry)[^:]*)?", "registries"),
    decides(NotFound, "was deleted or has expired[^:]*", "Quay"),
    decides(NotFound, "(?:the )?(?:named )?(?:repository|manifest|tag|image) (?:name )?(?:is )?(?:not known to (?:the )?registry|tagged by [^:]* is not found)", "distribution, ACR"),
    decides(NotFound, "(?:repository|manifest|image) with (?:name|tag|digest|imageid).*does not exist in the (?:registry|repository)[^:]*", "ECR"),
    decides(NotFound, "requested image not found", "ECR"),
    decides(NotFound, "(?:repo|repository|image|manifest|tag) (?:was )?not found", "Quay, Harbor"),
    decides(NotFound, "(?:no such (?:image|repository|manifest|tag)|unknown image)", "registries"),
    decides(NotFound, status!("404|410", "not found|gone"), "HTTP"),
    decides(NotFound, "failed to (?:resolve|resove) (?:reference|image)(?: #+)?: (?:[^:]*: )?(?:#+:? )?not found", "containerd resolver.go"),
    // No registry at all answers there, or not yet.
    decides(NotFound, concat!("pinging (?:container |docker )?registry.*", status!("404|410", "not found|gone")), "containers/image").but(Unclear),
    decides(NotFound, concat!("httprea\\w+: failed open: .*", status!("404|410", "not found|gone")), "containerd httpreadseeker.go, a manifest of an index").but(Unclear),
    hints(NotFound, "#+:? not found", "a name that is not found, but nobody says by whom").but(Unclear),
    // A page where a registry should be: the right class, but no registry has said so.
    decides(NotFound, "(?:error parsing http )404 response body: (?:invalid character .{1,4} (?:looking for beginning of|after top-level) value|unexpected end of json input)", "Docker distribution client").but(Unclear),
    decides(Unauthorized, "(?:error parsing http )40[13] response body: (?:invalid character .{1,4} (?:looking for beginning of|after top-level) value|unexpected end of json input)", "Docker distribution client").but(Unclear),
    outranks(RegistryError, "(?:error parsing http )5\\d\\d response body.*", "Docker distribution client").but(Transient),
    outranks(RateLimited, "(?:error parsing http )429 response body.*", "Docker distribution client").but(Transient),
    hints(NotFound, "not found", "bare words").but(Unclear),
];
