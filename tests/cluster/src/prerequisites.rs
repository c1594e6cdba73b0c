//! What the machine must have before a cluster can stand: a few Debian packages, and the binaries that build.sh makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::place::tools;
use crate::shell::{run, say, succeeds};

/// Programs, and the Debian packages that hold them.
const ALWAYS: &[(&str, &str)] = &[("openssl", "openssl"), ("setsid", "util-linux")];
const NAMESPACE: &[(&str, &str)] = &[("ip", "iproute2"), ("nsenter", "util-linux")];
const NODES: &[(&str, &str)] = &[("nft", "nftables"), ("runc", "runc"), ("mount", "mount")];

/// Whether a cluster can have nodes here: it takes the right to make network namespaces, which root in a container may not
/// have. Without it [`crate::Cluster::up`] brings up a control plane alone, and a test of anything more has to be skipped.
pub fn nodes_possible() -> bool {
    rustix::process::geteuid().is_root() && succeeds(Command::new("unshare").args(["--net", "--mount", "true"]))
}

/// Installs what is missing where that is possible, and says what to do where it is not.
pub(crate) fn ensure_packages(cluster: &str, with_nodes: bool, with_namespace: bool) -> Result<()> {
    let namespace = if with_namespace { NAMESPACE } else { &[] };
    let nodes = if with_nodes { NODES } else { &[] };
    let wanted = ALWAYS.iter().chain(namespace).chain(nodes);
    let mut missing: Vec<&str> = wanted.filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if with_nodes && image::busybox().is_err() {
        missing.push("busybox-static");
    }
    if !missing.is_empty() {
        install(cluster, &missing)?;
    }
    if with_nodes {
        image::busybox()?;
        // Built in or loaded already: then it says no, and all is well. A missing one shows in a component's log.
        for module in ["overlay", "veth", "bridge", "nf_tables", "nf_conntrack"] {
            succeeds(Command::new("modprobe").args(["--quiet", module]));
        }
    }
    Ok(())
}

fn install(cluster: &str, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() || !on_path("apt-get") {
        bail!("missing programs: install the Debian packages {list} (or what your system calls them) and run again");
    }
    say(cluster, &format!("installing the Debian packages {list}"));
    let apt = |words: &[&str]| {
        run(Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive"))
            .with_context(|| format!("the packages {list} could not be installed; install them and run again"))
    };
    // A list that is there may be recent enough; only a failure is worth the half minute of an update.
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|directory| Path::new(directory).join(program).is_file())
}

/// The folder of binaries, built if it is not in the cache. build.sh says by itself how far it is.
pub(crate) fn ensure_binaries() -> Result<PathBuf> {
    let output = Command::new("bash")
        .arg(tools().join("build.sh"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run bash")?;
    if !output.status.success() {
        bail!("the binaries of the cluster could not be built (the reason stands above)");
    }
    let printed = String::from_utf8(output.stdout)?;
    printed.lines().last().map(PathBuf::from).context("build.sh printed no folder")
}
