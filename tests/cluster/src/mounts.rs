//! A mount namespace per node. The kubelet, containerd and runc have paths compiled in (`/var/lib/kubelet/device-plugins`,
//! `/run/containerd`, `/var/lib/cni`): two nodes would fight for them, and so would a real kubelet of the machine. Inside
//! the namespace they lead to the node's own directories, and all that pods mount vanishes with the last process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::Node;
use crate::place::{Place, RUN};
use crate::process::{self, Program};
use crate::shell::wait_for;

/// The paths that nodes may not share.
const OWN: [&str; 4] = ["/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd"];

/// Binds them, lets what is mounted here be seen by all in here (a kubelet mounts, containerd uses it), and stays: a
/// namespace lives as long as a process in it, and the daemons come and go.
const HOLD: &str = r#"mount --make-rshared / || exit 1
home=$1; shift
for path; do mount --bind "$home$path" "$path" || exit 1; done
exec sleep 2147483647"#;

/// What enters a node's mount namespace, made if there is none, and `prefix`, which enters another.
pub(crate) fn enter(place: &Place, node: Node, prefix: Vec<String>) -> Result<Vec<String>> {
    let label = format!("mounts-{}", node.letter());
    let holder = match process::running(place, &label) {
        Some(holder) => holder,
        None => hold(place, node, &label)?,
    };
    Ok([vec!["nsenter".to_owned(), format!("--mount=/proc/{holder}/ns/mnt"), "--".to_owned()], prefix].concat())
}

fn hold(place: &Place, node: Node, label: &str) -> Result<i32> {
    let home = place.node(node).join("own");
    for path in OWN {
        let ours = home.join(path.trim_start_matches('/'));
        for path in [Path::new(path), &ours] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    let words = ["--mount", "--propagation=slave", "sh", "-c", HOLD, "sh"].map(str::to_owned);
    let args = words.into_iter().chain([home.display().to_string()]).chain(OWN.map(str::to_owned)).collect();
    process::spawn(place, label, &[], &Program { path: "unshare".into(), args })?;
    let limit = Duration::from_secs(5);
    let mut holder = 0;
    wait_for(
        &format!("the mount namespace of {node} is made (see {})", process::log(place, label).display()),
        limit,
        || {
            let Some(pid) = process::running(place, label) else { return Ok(false) };
            holder = pid;
            // The last thing that it does.
            Ok(fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"))
        },
    )?;
    Ok(holder)
}

/// Takes away the empty directories that had to exist on the host to be mounted upon: with the last cluster only, as the
/// kernel lets a directory go that is mounted upon in another mount namespace, and the mount with it.
pub(crate) fn forget() {
    if fs::remove_dir(RUN).is_ok() {
        for path in OWN {
            let _used_by_others = fs::remove_dir(path);
        }
    }
}
