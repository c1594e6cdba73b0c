//! Two real registries inside the cluster's network: an open one, and one that asks for a password.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::credentials::write_secret;
use crate::network::Network;
use crate::node::Node;
use crate::place::Place;

pub(crate) const PORT: u16 = 5000;
pub(crate) const AUTH_PORT: u16 = 5001;

/// The user of the registry that asks.
pub const REGISTRY_USER: &str = "tester";
/// No secret: it guards nothing but the tests' own images, on an address that only this machine reaches.
pub const REGISTRY_PASSWORD: &str = "pullguard-test";
/// bcrypt of that password; the registry takes no other kind of hash, and no tool at hand makes one.
const HASH: &str = "$2a$05$TPhl3AdoCsdHAOkmiyAAVuotnUrw3uS6wFV0clGMYAfQtK9o4AxL2";

pub(crate) fn address(network: Network, port: u16) -> String {
    format!("{}:{port}", network.address())
}

/// Writes the configuration of one registry and returns its arguments.
pub(crate) fn prepare(place: &Place, network: Network, port: u16) -> Result<Vec<String>> {
    let home = place.state.join(format!("registry-{port}"));
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": false}},
        "storage": {
            "filesystem": {"rootdirectory": home.join("data")},
            "delete": {"enabled": true},
            // Its clean-up of uploads prints only noise here.
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": address(network, port)},
    });
    if port == AUTH_PORT {
        let users = home.join("htpasswd");
        write_secret(&users, &format!("{REGISTRY_USER}:{HASH}\n"))?;
        if let Some(config) = config.as_object_mut() {
            config.insert("auth".into(), json!({"htpasswd": {"realm": "tests", "path": users}}));
        }
    }
    let path = home.join("config.yml");
    // JSON is YAML.
    fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(vec!["serve".into(), path.display().to_string()])
}

/// Tells a node's containerd that pulls from `host` go, by plain HTTP, to `server` (`host:port`). It reads the file at
/// each pull.
pub(crate) fn trust(place: &Place, node: Node, host: &str, server: &str) -> Result<()> {
    let directory = place.node(node).join("hosts").join(host);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let text =
        format!("server = \"http://{server}\"\n[host.\"http://{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    fs::write(directory.join("hosts.toml"), text).with_context(|| format!("cannot write hosts.toml of {host}"))
}

/// A Docker configuration with the password, for crane; also what a pull secret holds.
pub(crate) fn docker_config(network: Network, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let login = json!({"username": REGISTRY_USER, "password": REGISTRY_PASSWORD});
    let config = json!({"auths": {address(network, AUTH_PORT): login}});
    write_secret(directory.join("config.json"), &config.to_string())
}
