//! A registry that fails as a scenario wants it to: it stands before the real one, or in its place.
//!
//! Enters: requests of the nodes' containerds, on the host's end of the cluster's network. Leaves: the real registry's
//! answers, or a fault. Each proxy has a port of its own, so that each is a registry host of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::Cluster;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};

/// How an answer is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, whatever is asked.
    Status(u16),
    /// 401, and with a token 401 again: the registry will not say whether it is missing or denied.
    Denied,
    /// A web page where a manifest should be, as of a captive portal.
    Page,
    /// The manifest is there, what it names is not.
    MissingBlob,
    /// What the manifest names has other bytes.
    BrokenBlob,
}

/// The paths that fail, by a part of each, and how.
type Faults = Arc<Mutex<Vec<(String, Fault)>>>;

/// Somebody who listens where a registry should be. Its port is closed when it is dropped.
pub struct Proxy {
    address: String,
    faults: Faults,
    closed: Arc<AtomicBool>,
}

/// Nobody who asks takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Proxy {
    /// A proxy by plain HTTP; it begins without a fault. The nodes are told to trust it.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let proxy = Self::at(cluster, &free_address(cluster)?)?;
        for node in cluster.nodes() {
            cluster.trust_registry(node, &proxy.address, &proxy.address)?;
        }
        Ok(proxy)
    }

    /// The same at an address where nobody listened until now.
    pub fn at(cluster: &Cluster, address: &str) -> Result<Self> {
        let registry = cluster.registry();
        Self::listen(address, move |stream, faults| relay(stream, &registry, faults))
    }

    /// It speaks TLS, with a certificate that nobody has signed.
    pub fn with_unknown_ca(cluster: &Cluster) -> Result<Self> {
        let address = free_address(cluster)?;
        let config = self_signed(&cluster.host_address())?;
        Self::listen(&address, move |mut stream, _| {
            let mut connection = ServerConnection::new(Arc::clone(&config))?;
            connection.complete_io(&mut stream).map(drop).context("no handshake")
        })
    }

    /// It takes connections and says nothing: a node gives up after the 10 s of a TLS handshake.
    pub fn mute(cluster: &Cluster) -> Result<Self> {
        Self::listen(&free_address(cluster)?, |mut stream, _| {
            let mut ignored = [0; 4096];
            while stream.read(&mut ignored)? > 0 {}
            Ok(())
        })
    }

    /// `host:port`, as in a reference.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on everything fails so.
    pub fn fail(&self, fault: Fault) {
        self.fail_only("", fault);
    }

    /// What has this in its path fails so.
    pub fn fail_only(&self, part: &str, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((part.to_owned(), fault));
    }

    /// From now on it is as good as the registry behind it.
    pub fn heal(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn listen(
        address: &str,
        serve: impl Fn(TcpStream, &Faults) -> Result<()> + Clone + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let (faults, closed) = (Faults::default(), Arc::new(AtomicBool::new(false)));
        let (all, end) = (Arc::clone(&faults), Arc::clone(&closed));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, faults) = (serve.clone(), Arc::clone(&all));
                thread::spawn(move || {
                    let _timed = stream.set_read_timeout(Some(PATIENCE));
                    // A node that turns away in the middle is part of the game.
                    let _turned_away = serve(stream, &faults);
                });
            }
        });
        Ok(Self { address: address.to_owned(), faults, closed })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // So that it wakes and sees that it is over.
        let _woken = TcpStream::connect(&self.address);
    }
}

/// An address of the host's end at which nobody listens.
pub fn free_address(cluster: &Cluster) -> Result<String> {
    let listener = TcpListener::bind((cluster.host_address(), 0)).context("cannot listen on the host's address")?;
    Ok(listener.local_addr()?.to_string())
}

fn self_signed(host: &str) -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok(Arc::new(config))
}

/// One request and its answer; then the connection is closed, so that no length has to be understood.
fn relay(mut stream: TcpStream, registry: &str, faults: &Faults) -> Result<()> {
    let head = read_head(&mut stream)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let is_head = method == "HEAD";
    let fault = faults
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .find(|(part, _)| path.contains(part))
        .map(|(_, fault)| *fault);
    let is_blob = path.contains("/blobs/");
    match fault {
        None if path.starts_with("/token") => answer(&mut stream, 200, "application/json", r#"{"token":"t"}"#, is_head),
        Some(Fault::Status(status)) => answer(&mut stream, status, "text/plain", "no\n", is_head),
        Some(Fault::Denied) => {
            let here = stream.local_addr()?;
            let challenge = format!(
                "Content-Type: text/plain\r\nWWW-Authenticate: Bearer realm=\"http://{here}/token\",service=\"tests\",error=\"insufficient_scope\""
            );
            answer_with(&mut stream, 401, &challenge, "no\n", is_head)
        }
        Some(Fault::Page) => answer(&mut stream, 200, "text/html", "<html><body>Log in</body></html>\n", is_head),
        Some(Fault::MissingBlob) if is_blob => {
            let unknown = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            answer(&mut stream, 404, "application/json", unknown, is_head)
        }
        Some(Fault::BrokenBlob) if is_blob => {
            let mut bytes = ask(registry, &head)?;
            if let Some(last) = bytes.last_mut().filter(|_| !is_head) {
                *last ^= 0xff;
            }
            Ok(stream.write_all(&bytes)?)
        }
        Some(Fault::MissingBlob | Fault::BrokenBlob) | None => Ok(stream.write_all(&ask(registry, &head)?)?),
    }?;
    Ok(stream.shutdown(Shutdown::Write)?)
}

/// Up to the empty line: none of these requests has a body.
fn read_head(stream: &mut TcpStream) -> Result<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 || head.len() > 65_536 {
            bail!("no request");
        }
        head.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8(head)?)
}

/// What the real registry says to this request.
fn ask(registry: &str, head: &str) -> Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(registry)?;
    upstream.set_read_timeout(Some(PATIENCE))?;
    let lines = head.trim_end().lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("host:") && !line.starts_with("connection:")
    });
    let request = lines.collect::<Vec<_>>().join("\r\n");
    upstream.write_all(format!("{request}\r\nHost: {registry}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    upstream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn answer(stream: &mut TcpStream, status: u16, kind: &str, body: &str, is_head: bool) -> Result<()> {
    answer_with(stream, status, &format!("Content-Type: {kind}"), body, is_head)
}

fn answer_with(stream: &mut TcpStream, status: u16, headers: &str, body: &str, is_head: bool) -> Result<()> {
    let length = body.len();
    let body = if is_head { "" } else { body };
    let phrase = match status {
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        other => bail!("no phrase for status {other}"),
    };
    let head =
        format!("HTTP/1.1 {status} {phrase}\r\n{headers}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Ok(stream.write_all(format!("{head}{body}").as_bytes())?)
}
