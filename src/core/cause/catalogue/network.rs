//! Rows of what happens between the node and the registry: nobody answered, or not in a language the node trusts.

use super::super::class::FailureClass::{Network, Tls};
use super::super::class::Permanence::Transient;
use super::{Row, decides, hints};

const PLAIN_HTTP: &str =
    "The registry of {image} speaks plain HTTP: configure it as insecure in the node's runtime, or give it TLS.";

#[rustfmt::skip] // A table: one row, one line.
pub(super) const ROWS: &[Row] = &[
    // Tls: not trusted, or not TLS
    decides(Tls, "x509: .*", "Go crypto/x509"),
    decides(Tls, "(?:tls: )?failed to verify certificate(?:: .*)?", "Go crypto/tls"),
    decides(Tls, "(?:tls: )?certificate (?:signed by unknown authority|has expired|is not trusted|is not valid|is valid for)[^:]*", "Go crypto/x509"),
    decides(Tls, "(?:http: )?server gave http response to https client", "Go net/http").remedy(PLAIN_HTTP),
    decides(Tls, "tls: first record does not look like a tls handshake", "Go crypto/tls").remedy(PLAIN_HTTP),
    decides(Tls, "tls: oversized record received[^:]*", "Go crypto/tls").remedy(PLAIN_HTTP),
    decides(Tls, "client sent an http request to an https server", "Go net/http"),
    decides(Tls, "remote error: tls: [^:]*", "Go crypto/tls").but(Transient),
    decides(Tls, "tls: (?:handshake failure|internal error|bad record mac|protocol version not supported|unsupported[^:]*|server selected unsupported[^:]*|no (?:supported|mutual)[^:]*|failed to[^:]*|error decoding[^:]*|unexpected message|received unexpected[^:]*|server chose[^:]*|either servername[^:]*|client offered[^:]*)", "Go crypto/tls").but(Transient),
    decides(Tls, "(?:self[- ]signed certificate|unable to get local issuer certificate|certificate verify failed)[^:]*", "OpenSSL, rustls"),
    // Network: timeouts
    decides(Network, "i/o timeout", "Go net"),
    decides(Network, "(?:net/http: )?tls handshake timeout", "Go net/http"),
    decides(Network, "(?:net/http: )?request canceled(?: while waiting for connection)?(?: \\(client\\.timeout exceeded[^)]*\\))?", "Go net/http"),
    decides(Network, "client\\.timeout(?: or context cancellation)? (?:exceeded )?while (?:awaiting headers|reading body)", "Go net/http"),
    decides(Network, "(?:net/http: )?timeout awaiting response headers", "Go net/http"),
    decides(Network, "context deadline exceeded(?: \\(client\\.timeout exceeded[^)]*\\))?", "Go context"),
    decides(Network, "(?:deadline exceeded|context canceled|context cancelled|operation was canceled|pull (?:was )?cancell?ed|operation timed out|connection timed out|timed out|timeout expired|request timeout|request timed out)", "Go, kernels"),
    decides(Network, "timeout: no recent network activity|(?:because of no progress|because of exceed image pull deadline|because it exceeded image pull deadline)[^:]*", "QUIC, dockershim"),
    decides(Network, "(?:net/http|http|http2): timeout[^:]*", "Go net/http"),
    // Network: names
    decides(Network, "no such host(?: is known)?", "Go net"),
    decides(Network, "server misbehaving", "Go net"),
    decides(Network, "temporary failure in name resolution|name or service not known|temporary error|name does not resolve|no data record of the requested type was found", "libc, Windows"),
    decides(Network, "dial tcp: lookup [^:]*: .*", "Go net"),
    // Network: connections
    decides(Network, "connection refused|actively refused it", "kernels"),
    decides(Network, "connection (?:was )?(?:reset by peer|aborted|forcibly closed|closed by (?:foreign host|peer)|broken|error)|forcibly closed by the remote host|wsarecv[^:]*|wsasend[^:]*|connectex[^:]*", "kernels, Windows"),
    decides(Network, "no route to host|network is unreachable|network is down|host is (?:down|unreachable)|network unreachable|protocol not available|address family not supported by protocol|cannot assign requested address", "kernels"),
    decides(Network, "broken pipe|software caused connection abort|use of closed network connection|closed pipe", "Go net"),
    decides(Network, "connect: (?:permission denied|invalid argument|operation not permitted|bad file descriptor|resource temporarily unavailable|operation already in progress)", "kernels, firewalls"),
    decides(Network, "connected party did not properly respond[^:]*", "Windows"),
    decides(Network, "unexpected eof", "Go io"),
    decides(Network, "eof", "Go io"),
    decides(Network, "server sent goaway[^:]*|stream error: stream id[^:]*|client connection (?:force closed|lost)[^:]*|http2: [^:]*|http/1.x transport connection broken[^:]*|transport connection broken|malformed (?:http (?:response|status code)|mime header)[^:]*|server closed (?:idle )?connection|connection closed before[^:]*|unexpected end of (?:json|file|stream)[^:]*", "Go net/http"),
    decides(Network, "proxyconnect tcp[^:]*", "Go net/http"),
    decides(Network, "(?:socks connect|could not reach any registry endpoint|unable to connect|could not connect|failed to connect|cannot connect|couldn't connect)[^:]*", "proxies, libcurl"),
    hints(Tls, "#certs#+:? no such file or directory|missing (?:client certificate|key) \\S+ for [^:]*", "Docker's certs.d"),
    hints(Network, "dial (?:tcp|udp|unix)[^:]*", "Go net"),
    hints(Network, "failed to do request", "containerd resolver.go"),
    hints(Network, "(?:pinging|unable to ping) (?:container |docker )?registry[^:]*", "containers/image, Docker"),
    hints(Network, "(?:read|write) (?:tcp|udp) [^:]*", "Go net").but(Transient),
];
