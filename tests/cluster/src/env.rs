//! What a person's shell is told: a file to source, and the script that it names as IMPORT.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::credentials::write_secret;

/// Writes both. Of a control plane without nodes there is nothing to say but KUBECONFIG and KUBECTL.
pub(crate) fn write(cluster: &Cluster) -> Result<()> {
    let place = &cluster.place;
    let kubectl = cluster.bin().join("kubectl");
    let mut lines = vec![("KUBECONFIG", shown(&place.kubeconfig())), ("KUBECTL", shown(&kubectl))];
    let names = ["NODE_A", "NODE_B"];
    lines.extend(names.into_iter().zip(cluster.nodes()).map(|(name, node)| (name, node.to_string())));
    if !cluster.nodes().is_empty() {
        let script = place.state.join("import");
        fs::write(&script, import_script(&place.name)?)
            .and_then(|()| fs::set_permissions(&script, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", script.display()))?;
        lines.extend([("REGISTRY", cluster.registry()), ("IMPORT", shown(&script))]);
    }
    let text: String = lines.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
    write_secret(place.env_file(), &text)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// It calls our command line where that is us; a test that brought the cluster up has none, then cargo has it.
fn import_script(name: &str) -> Result<String> {
    let us = std::env::current_exe().context("this program does not know its own path")?;
    let call = if us.file_name().is_some_and(|file| file == "cluster") {
        format!("'{}'", us.display())
    } else {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        format!("cargo run --quiet --release --locked --manifest-path '{}' --", manifest.display())
    };
    Ok(format!(
        "#!/bin/sh\n# Puts a small image of a name on a node: import NODE NAME:TAG\nexec {call} import --name {name} \"$@\"\n"
    ))
}
