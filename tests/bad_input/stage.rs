//! The door on a real port, with a webhook behind it, and clients that come to it.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum_server::Handle;
use jiff::Timestamp;
use pullguard::core::refusal::NoRefusals;
use pullguard::shell::certificates::{Keyring, Renewal};
use pullguard::shell::door;
use pullguard::shell::tls::Serving;
use pullguard::shell::webhook::{Webhook, router};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// One at a time: files and memory are the process's.
static STAGE: Mutex<()> = Mutex::new(());

pub struct Stage {
    pub address: SocketAddr,
    ca: String,
    _runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

pub type Client = StreamOwned<ClientConnection, TcpStream>;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

impl Stage {
    pub fn open(webhook: Arc<Webhook<NoRefusals>>) -> Self {
        let alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keyring =
            Keyring::default().renewed(Renewal::Authority, "pullguard", Timestamp::now()).expect("certificates");
        let serving = Arc::new(Serving::default());
        serving.set(&keyring.certificate, &keyring.key).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.spawn(door::serve(listener, serving, router(webhook), Handle::new()));
        Self { address, ca: keyring.ca, _runtime: runtime, _alone: alone }
    }

    pub fn connect(&self) -> io::Result<Client> {
        self.connect_speaking(&[b"http/1.1"])
    }

    /// With these protocols on offer (ALPN).
    pub fn connect_speaking(&self, protocols: &[&[u8]]) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("a CA")).expect("a root");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("pullguard.pullguard.svc").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = self.plain()?;
        connection.complete_io(&mut stream)?;
        Ok(StreamOwned::new(connection, stream))
    }

    pub fn plain(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What comes back for these bytes on a connection of their own.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut client = self.connect()?;
        send(&mut client, bytes)
    }

    /// The very next review is answered, and soon.
    pub fn serves_the_next(&self) {
        self.serves_the_next_within(Duration::from_secs(1));
    }

    pub fn serves_the_next_within(&self, limit: Duration) {
        let start = Instant::now();
        let review = review(&pod("pause:3", "IfNotPresent")).to_string();
        let answer = self.send(&post("/validate?timeout=10s", &review)).expect("an answer");
        let took = start.elapsed();
        assert_eq!((answer.status, &answer.json()["response"]["allowed"]), (200, &json!(true)), "{}", answer.body);
        assert!(took < limit, "the next review took {took:?}");
    }
}

pub fn send(client: &mut Client, bytes: &[u8]) -> io::Result<Answer> {
    // An answer may come before all is sent, and must not be lost over it.
    let sent = client.write_all(bytes).and_then(|()| client.flush());
    match receive(client) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

pub fn receive(client: &mut impl io::Read) -> io::Result<Answer> {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = client.read(&mut piece)?;
        text.extend_from_slice(&piece[..count]);
        if let Some(answer) = whole(&String::from_utf8_lossy(&text)) {
            return Ok(answer);
        }
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, String::from_utf8_lossy(&text).into_owned()));
        }
    }
}

fn whole(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok();
    let length = head.lines().find_map(length).unwrap_or(0);
    (body.len() == length).then(|| Answer { status, head: head.to_owned(), body: body.to_owned() })
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: pullguard\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub fn pod(image: &str, pull_policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "app", "image": image, "imagePullPolicy": pull_policy}]}})
}

pub fn review(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "namespace": "default", "name": "p", "object": object, "oldObject": null, "dryRun": false}})
}

/// A review of exactly so many bytes.
pub fn review_of_size(size: usize) -> String {
    let mut object = pod("pause:3", "IfNotPresent");
    object["metadata"]["annotations"] = json!({"fill": ""});
    let length = review(&object).to_string().len();
    object["metadata"]["annotations"]["fill"] = json!("x".repeat(size - length));
    review(&object).to_string()
}
