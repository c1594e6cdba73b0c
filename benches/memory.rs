//! The memory of the whole process, at 5,000 nodes and 150,000 pods.
//!
//! `cargo bench --bench memory`. The real program, both halves, on the real path: watches, decoding, inventory, ledger. What
//! it watches is a made-up API server (`support/api.rs`). It is run twice, with a few pages of pods and with all of them;
//! then the pods change, come and go. What counts is the most that it ever held: that is what a limit kills by.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a measurement may stop where it stands"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::api::{Cluster, listen};
use support::cluster::NODES;
use support::figures::Figures;
use support::machine::{load, mib, peak_kib, resident_kib};

const PODS: usize = 150_000;
/// Some pages of a list: what reading them leaves behind in the allocator is there with few pods as with many.
const FEW_PODS: usize = 3_000;
const CHANGES: usize = 300_000;
const WHOLE_MIB: f64 = 128.0;
/// What 147,000 more pods may leave behind: 57 bytes each, less than the smallest thing that could be kept of a pod (its
/// uid and a place in a map). Measured is noise of the allocator.
const PODS_MIB: f64 = 8.0;
const CHANGES_MIB: f64 = 4.0;
const PATIENCE: Duration = Duration::from_secs(300);

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// The program, ended with this value.
struct Program {
    child: Child,
    probes: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(api: SocketAddr) -> Self {
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-memory-kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}]\n\
            contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        std::fs::write(&config, text).expect("a kubeconfig");
        let (probes, webhook) = (free_port(), free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_pullguard"))
            .args([
                "run",
                "--log=warn",
                "--probes-address",
                &probes.to_string(),
                "--webhook-address",
                &webhook.to_string(),
            ])
            .env("KUBECONFIG", config)
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program");
        Self { child, probes }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.probes).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|text| text.starts_with("HTTP/1.1 200"))
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }

    fn resident_mib(&self) -> f64 {
        mib(resident_kib(&self.id()))
    }

    fn peak_mib(&self) -> f64 {
        mib(peak_kib(&self.id()))
    }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs the program until it has read all that there is.
fn settled(runtime: &tokio::runtime::Runtime, cluster: &Arc<Cluster>) -> (Program, Duration) {
    let api = runtime.block_on(listen(Arc::clone(cluster)));
    let (program, start) = (Program::start(api), Instant::now());
    wait("ready", || program.is_ready());
    wait("pods listed", || cluster.watched.load(Ordering::Acquire));
    let took = start.elapsed();
    // A plan or two.
    std::thread::sleep(Duration::from_secs(2));
    (program, took)
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut figures = Figures::default();

    let (program, _) = settled(&runtime, &Arc::new(Cluster::new(FEW_PODS, 0)));
    let few = program.resident_mib();
    figures.note(format!("{NODES} nodes, {FEW_PODS} pods: resident"), format!("{few:.1} MiB"));
    figures.note(format!("{NODES} nodes, {FEW_PODS} pods: the most ever"), format!("{:.1} MiB", program.peak_mib()));
    drop(program);

    let cluster = Arc::new(Cluster::new(PODS, CHANGES));
    let (program, took) = settled(&runtime, &cluster);
    let with = program.resident_mib();
    figures.note(format!("{NODES} nodes, {PODS} pods: all read within"), format!("{:.1} s", took.as_secs_f64()));
    figures.note(format!("{NODES} nodes, {PODS} pods: resident"), format!("{with:.1} MiB"));
    let more = (with - few).max(0.0);
    let what = format!("of these for {} more healthy pods of {} bytes", PODS - FEW_PODS, cluster.pod_bytes());
    figures.target(what, format!("{more:.1} MiB"), "< 8 MiB", more < PODS_MIB);

    cluster.stirred.store(true, Ordering::Release);
    // The first half warms up what there is to warm up.
    wait("half of the changes", || cluster.told.load(Ordering::Acquire) >= CHANGES / 2);
    std::thread::sleep(Duration::from_secs(1));
    let half = program.resident_mib();
    wait("all changes", || cluster.told.load(Ordering::Acquire) >= CHANGES);
    std::thread::sleep(Duration::from_secs(2));
    let grown = (program.resident_mib() - half).max(0.0);
    let what = format!("grown by the second half of {CHANGES} changes of healthy pods");
    figures.target(what, format!("{grown:.1} MiB"), "< 4 MiB", grown < CHANGES_MIB);

    let metrics = program.get("/metrics").unwrap_or_default();
    let gauge = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    figures.note("nodes in its inventory", gauge("pullguard_inventory_nodes "));
    figures.note("leads", gauge("pullguard_leader "));
    let peak = program.peak_mib();
    figures.target("whole process, the most ever", format!("{peak:.1} MiB"), "< 128 MiB", peak < WHOLE_MIB);
    drop(program);
    runtime.shutdown_background();
    figures.finish(&format!("memory ({})", load()))
}
