//! The way to a cluster through a proxy: a listener that is called, or is not. No cluster is behind it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::data;

/// One connection, and the first line of what comes; `None` if nobody calls until the program has ended.
fn first_line(listener: &TcpListener) -> Option<String> {
    listener.set_nonblocking(true).expect("a listener");
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(false).expect("a stream");
    BufReader::new(stream).lines().next()?.ok()
}

#[test]
fn the_environments_proxy_leads_to_a_cluster_unless_it_is_excepted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = format!("http://{}", listener.local_addr().expect("an address"));
    let folder = std::env::temp_dir();
    let kubeconfig = |server: &str| {
        let file = folder.join(format!("pullguard-proxy-{}-{}.yaml", std::process::id(), server.len()));
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "c", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
        fs::write(&file, config.to_string()).expect("a kubeconfig");
        file
    };
    let called = |server: &str, excepted: &str| {
        let file = kubeconfig(server);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pullguard"));
        command.args(["check", "-f", "allowed.yaml"]).current_dir(data("")).env("KUBECONFIG", &file);
        command.env("HTTPS_PROXY", &proxy).env("NO_PROXY", excepted);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let line = loop {
            let line = first_line(&listener);
            if line.is_some() || child.try_wait().expect("a child").is_some() || Instant::now() > deadline {
                break line;
            }
            sleep(Duration::from_millis(20));
        };
        let _ended_already = child.kill();
        child.wait().expect("the program ends");
        fs::remove_file(file).expect("a kubeconfig");
        line
    };
    // A name that no resolver knows: only a proxy could know the way.
    let server = "https://api.cluster.invalid:6443";
    assert_eq!(called(server, "").as_deref(), Some("CONNECT api.cluster.invalid:6443 HTTP/1.1"));
    assert_eq!(called(server, "other.invalid").as_deref(), Some("CONNECT api.cluster.invalid:6443 HTTP/1.1"));
    assert_eq!(called(server, "cluster.invalid"), None);
    assert_eq!(called("https://127.0.0.1:9", ""), None);
}
