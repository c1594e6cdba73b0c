//! The whole webhook over TLS, against servers that allow everything on the same stack.
//!
//! `cargo bench --bench webhook`. All servers have the product's own door, limits and reading of bodies, and one worker
//! thread each; the other one of two cores is left to the client. One always-allow server is what anybody writes with
//! `kube`: it reads the review into `kube`'s own types, and answers. The other one looks for nothing but the uid, without
//! which no API server takes an answer: less cannot be done, so it shows the whole price of judging. Rounds alternate, and
//! a ratio is the middle one of those of neighbouring rounds: on a machine that others use as well a long run of one and
//! then of the other would compare their neighbours.
//!
//! HTTP/1.1 with keep-alive is what the API server uses with webhooks (`NextProtos: ["http/1.1"]` in
//! apiserver/pkg/util/webhook/client.go, kubernetes/kubernetes#75791), so nothing else is measured, nor spoken.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a measurement may stop where it stands"
)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use pullguard::core::policies::Policies;
use pullguard::shell::certificates::{Keyring, Renewal};
use pullguard::shell::door::{self, Turn};
use pullguard::shell::tls::Serving;
use pullguard::shell::webhook::{BODY_TIME, Bodies, Refusal};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use support::Lots;
use support::cluster::{self, NAMES, Which, Whom, common, missing, policies};
use support::figures::{Figures, Percentiles, median};
use support::machine::{load, processor_time};
use support::objects::{Size, deployment, pod, review};
use support::stand::{log_to_nowhere, stand};

const CONNECTIONS: [usize; 3] = [1, 8, 64];
const RATIO: f64 = 0.8;
/// Of one server, in one round.
const SLICE: Duration = Duration::from_millis(350);
const ROUNDS: usize = 7;

fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

/// What of a review an always-allow server cannot do without.
#[derive(Deserialize)]
struct OnlyUid<'a> {
    #[serde(borrow)]
    request: UidOfRequest<'a>,
}

#[derive(Deserialize)]
struct UidOfRequest<'a> {
    uid: &'a str,
}

type Allow = fn(&[u8]) -> Result<Vec<u8>, serde_json::Error>;

/// With the types that `kube` has for it.
fn allow_typed(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(serde::de::Error::custom)?;
    serde_json::to_vec(&AdmissionResponse::from(&request).into_review())
}

/// The least that can be done.
fn allow_blindly(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let review: OnlyUid<'_> = serde_json::from_slice(body)?;
    let uid = review.request.uid;
    let answer = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{uid}","allowed":true}}}}"#
    );
    Ok(answer.into_bytes())
}

fn always(allow: Allow) -> Router {
    let handle = async move |State(bodies): State<Bodies>, request: Request| -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let turn: Turn = head.extensions.get().cloned().unwrap_or_default();
        let body = bodies.read(&head.headers, body, BODY_TIME, &turn).await?;
        let _ours = turn.ours();
        let answer = allow(&body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(answer)).into_response())
    };
    Router::new().route("/validate", post(handle)).with_state(Bodies::default())
}

struct Server {
    /// Of its threads.
    name: &'static str,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

/// Serves on a runtime of its own with one worker.
fn serve(name: &'static str, keyring: &Keyring, router: impl FnOnce() -> Router) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime");
    let serving = Arc::new(Serving::default());
    serving.set(&keyring.certificate, &keyring.key).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let within = runtime.enter();
    let router = router();
    tokio::spawn(door::serve(listener, serving, router, axum_server::Handle::new()));
    drop(within);
    Server { name, address, _runtime: runtime }
}

/// Requests that differ from one another, so that nothing is quick for having been asked before.
struct Load {
    what: &'static str,
    requests: Vec<Vec<u8>>,
    bytes: usize,
}

fn request(review: &str) -> Vec<u8> {
    let length = review.len();
    format!(
        "POST /validate?timeout=10s HTTP/1.1\r\nHost: pullguard.pullguard.svc:443\r\nUser-Agent: kube-apiserver-admission\r\n\
        Content-Length: {length}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{review}"
    )
    .into_bytes()
}

fn load_of(what: &'static str, count: usize, mut review: impl FnMut(usize, &mut Lots) -> String) -> Load {
    let mut lots = Lots(5);
    let requests: Vec<Vec<u8>> = (0..count).map(|number| request(&review(number, &mut lots))).collect();
    let bytes = requests.iter().map(Vec::len).sum::<usize>() / count;
    Load { what, requests, bytes }
}

/// Images that some node holds all of, for pods that are allowed: of nodes that take any pod for amd64, and of the one pool
/// that a policy for everybody is about.
fn images_of_nodes(count: usize) -> Vec<Vec<String>> {
    let inventory = cluster::inventory(NAMES - 1);
    let plain = |index: &usize| {
        let round = index / cluster::POOLS_OF_NODES;
        let special = [97, 101, 499].into_iter().any(|every| index.is_multiple_of(every));
        !(special || round.is_multiple_of(5) || matches!(round % 9, 0 | 4))
    };
    let nodes = (0..cluster::NODES).step_by(cluster::POOLS_OF_NODES).filter(plain).take(count);
    let tagged = |index| {
        let names = inventory.names_on(&format!("node-{index}"));
        names.iter().filter(|name| name.ends_with(":v1.1")).map(ToString::to_string).collect()
    };
    nodes.map(tagged).collect()
}

fn loads() -> [Load; 5] {
    let together = images_of_nodes(64);
    [
        load_of("small pod", 256, |number, lots| {
            let of_node = &together[number % together.len()];
            let (main, side) = (&of_node[lots.next(of_node.len())], &of_node[lots.next(of_node.len())]);
            review(number, &pod(number, &[("main", main), ("side", side)], "Never", Size::SMALL), None)
        }),
        load_of("small pod, every third with a warning", 256, |number, lots| {
            let (main, side) = (common(lots), common(lots));
            review(number, &pod(number, &[("main", &main), ("side", &side)], "Never", Size::SMALL), None)
        }),
        load_of("small pod, denied", 256, |number, lots| {
            let (main, side) = (missing(lots), common(lots));
            review(number, &pod(number, &[("main", &main), ("side", &side)], "Never", Size::SMALL), None)
        }),
        load_of("large pod", 16, |number, _| {
            let names = ["a", "b", "c", "d", "e", "f", "g"];
            let containers: Vec<(&str, &str)> =
                names.into_iter().zip(together[number].iter().map(String::as_str)).collect();
            review(number, &pod(number, &containers, "Never", Size::LARGE), None)
        }),
        load_of("Deployment", 256, |number, lots| {
            let (main, side) = (common(lots), common(lots));
            review(number, &deployment(number, &[("main", &main), ("side", &side)], "IfNotPresent", Size::SMALL), None)
        }),
    ]
}

struct Client {
    connector: TlsConnector,
}

impl Client {
    fn new(ca: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a CA")).expect("a root");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("pullguard.pullguard.svc").expect("a name");
        self.connector.connect(name, stream).await.expect("a handshake")
    }
}

/// One request and its answer, of which the body is returned.
async fn ask<'a>(stream: &mut TlsStream<TcpStream>, request: &[u8], answer: &'a mut Vec<u8>) -> &'a [u8] {
    stream.write_all(request).await.expect("the request is taken");
    stream.flush().await.expect("the request is sent");
    answer.clear();
    loop {
        let read = stream.read_buf(answer).await.expect("an answer");
        assert!(read > 0, "the server has closed the connection");
        let Some(end) = answer.windows(4).position(|piece| piece == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end]).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        while answer.len() < end + 4 + length {
            assert!(stream.read_buf(answer).await.expect("an answer") > 0, "half an answer");
        }
        return &answer[end + 4..];
    }
}

/// What one server did in one round.
struct Slice {
    per_second: f64,
    times: Vec<Duration>,
    /// Processor time of the server for one request.
    cost: Duration,
}

async fn slice(client: &Client, server: &Server, load: &Arc<Load>, connections: usize) -> Slice {
    let mut streams = Vec::new();
    for number in 0..connections {
        let mut stream = client.connect(server.address).await;
        ask(&mut stream, &load.requests[number % load.requests.len()], &mut Vec::new()).await;
        streams.push(stream);
    }
    let (spent, start) = (processor_time(server.name), Instant::now());
    let until = start + SLICE;
    let asking = streams.into_iter().enumerate().map(|(number, mut stream)| {
        let load = Arc::clone(load);
        tokio::spawn(async move {
            let (mut times, mut answer) = (Vec::new(), Vec::with_capacity(8192));
            let mut next = number * 7;
            let mut at = Instant::now();
            while at < until {
                ask(&mut stream, &load.requests[next % load.requests.len()], &mut answer).await;
                next += 1;
                let now = Instant::now();
                times.push(now - at);
                at = now;
            }
            times
        })
    });
    let mut times = Vec::new();
    for asking in asking.collect::<Vec<_>>() {
        times.extend(asking.await.expect("a client"));
    }
    let took = start.elapsed();
    let cost = (processor_time(server.name) - spent) / u32::try_from(times.len().max(1)).unwrap_or(u32::MAX);
    Slice { per_second: times.len() as f64 / took.as_secs_f64(), times, cost }
}

/// All rounds of one server.
#[derive(Default)]
struct Sum {
    per_second: Vec<f64>,
    times: Vec<Duration>,
    cost: Vec<f64>,
}

impl Sum {
    fn add(&mut self, slice: Slice) {
        self.per_second.push(slice.per_second);
        self.times.extend(slice.times);
        self.cost.push(slice.cost.as_secs_f64() * 1e6);
    }

    fn print(&self, who: &str) {
        let times = Percentiles::new(self.times.clone());
        println!(
            "    {who:<14} {:>8.0} requests/s   p50 {:>8.1?}  p99 {:>8.1?}  p99.9 {:>8.1?}   {:>6.1} us of a core each",
            median(self.per_second.clone()),
            times.at(500),
            times.at(990),
            times.at(999),
            median(self.cost.clone()),
        );
    }
}

/// An always-allow server, and how the ratio to it is called.
struct Rival<'a> {
    server: &'a Server,
    what: &'static str,
}

async fn compare(
    client: &Client,
    ours: &Server,
    rivals: &[Rival<'_>],
    load: Load,
    target: bool,
    figures: &mut Figures,
) {
    let load = Arc::new(load);
    for connections in CONNECTIONS {
        let servers: Vec<&Server> = [ours].into_iter().chain(rivals.iter().map(|rival| rival.server)).collect();
        let mut sums: Vec<Sum> = servers.iter().map(|_| Sum::default()).collect();
        for round in 0..rounds() {
            for turn in 0..servers.len() {
                let place = (round + turn) % servers.len();
                sums[place].add(slice(client, servers[place], &load, connections).await);
            }
        }
        println!("  {}, {} bytes, {connections} connections:", load.what, load.bytes);
        sums[0].print("Pullguard");
        for (rival, sum) in rivals.iter().zip(&sums[1..]) {
            let ratios = sums[0].per_second.iter().zip(&sum.per_second).map(|(ours, theirs)| ours / theirs);
            let ratio = median(ratios.collect());
            sum.print(rival.what);
            let what = format!("{}, {connections} connections: ratio to {}", load.what, rival.what);
            if target {
                figures.target(what, format!("{ratio:.2}"), ">= 0.80", ratio >= RATIO);
            } else {
                figures.note(what, format!("{ratio:.2}"));
            }
        }
    }
}

fn our_server(name: &'static str, keyring: &Keyring, policies: Policies) -> Server {
    serve(name, keyring, || stand(cluster::inventory(NAMES - 1), &policies).router)
}

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("one provider");
    log_to_nowhere();
    let keyring = Keyring::default().renewed(Renewal::Authority, "pullguard", jiff::Timestamp::now());
    let keyring = keyring.expect("certificates");
    let ours = our_server("ours", &keyring, policies(100, Whom::Teams, Which::Pools));
    let crowded = our_server("crowded", &keyring, policies(100, Whom::Everybody, Which::Pools));
    let (typed, blind) =
        (serve("typed", &keyring, || always(allow_typed)), serve("blind", &keyring, || always(allow_blindly)));
    let rivals = [Rival { server: &typed, what: "always allow" }, Rival { server: &blind, what: "uid alone" }];
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut figures = Figures::default();
    client.block_on(async {
        let client = Client::new(&keyring.ca);
        let only = std::env::var("BENCH_ONLY").ok();
        let asked = |load: &Load| only.as_ref().is_none_or(|only| load.what == only);
        for load in loads().into_iter().filter(asked) {
            // What is told is what the webhook is for, and rare: it makes an Event, a log line and some sentences.
            let target = !matches!(load.what, "small pod, denied" | "small pod, every third with a warning");
            compare(&client, &ours, &rivals, load, target, &mut figures).await;
        }
        let [small, ..] = loads();
        let small = Load { what: "small pod that 100 policies match", ..small };
        if asked(&small) {
            compare(&client, &crowded, &rivals, small, false, &mut figures).await;
        }
    });
    figures.finish(&format!("webhook against always allow ({})", load()))
}
