//! A cgroup of the cluster's own in every hierarchy: `system` for its daemons, one per node for its pods. Without one
//! per node, each of two kubelets on a machine would delete the other's pods. cgroup v1 (also beside an unused v2, as
//! systemd mounts it) and v2 are told apart at run time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::place::Place;
use crate::shell::wait_for;

const SYSTEM: &str = "system";

/// Which kind of cgroups this machine has, and where.
#[derive(Debug)]
enum Hierarchies {
    /// One directory per controller; and v2 mounted beside them, where runc makes a cgroup as well, without controllers.
    V1 {
        controllers: Vec<PathBuf>,
        beside: Vec<PathBuf>,
    },
    V2(PathBuf),
}

impl Hierarchies {
    fn of_this_machine() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let of = |kind: &str| -> Vec<PathBuf> {
            mounts
                .lines()
                .filter_map(|line| {
                    let mut words = line.split(' ');
                    let (_, path, found) = (words.next()?, words.next()?, words.next()?);
                    // cpu and cpuacct mounted together have symbolic links beside them, which are no mounts.
                    (found == kind && path.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(path))
                })
                .collect()
        };
        let controllers = of("cgroup");
        if !controllers.is_empty() {
            return Ok(Self::V1 { controllers, beside: of("cgroup2") });
        }
        match of("cgroup2").into_iter().next() {
            Some(root) => Ok(Self::V2(root)),
            None => bail!("no cgroup hierarchy is mounted below /sys/fs/cgroup, and a kubelet cannot run without one"),
        }
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1 { controllers, beside } => controllers.iter().chain(beside).map(PathBuf::as_path).collect(),
            Self::V2(root) => vec![root],
        }
    }
}

/// Whether pods run under cgroup v1, which the kubelet refuses unless told.
pub(crate) fn is_v1() -> Result<bool> {
    Ok(matches!(Hierarchies::of_this_machine()?, Hierarchies::V1 { .. }))
}

/// The kubelet's `cgroupRoot`.
pub(crate) fn root_of(place: &Place, node: Node) -> String {
    format!("/{}/{node}", place.id)
}

/// Makes the cluster's cgroups.
pub(crate) fn make(place: &Place, nodes: &[Node]) -> Result<()> {
    let leaves: Vec<String> = nodes.iter().map(Node::to_string).chain([SYSTEM.to_owned()]).collect();
    match Hierarchies::of_this_machine()? {
        Hierarchies::V1 { controllers, .. } => {
            for root in controllers {
                let top = root.join(&place.id);
                make_v1(&root, &top)?;
                for leaf in &leaves {
                    make_v1(&top, &top.join(leaf))?;
                }
            }
        }
        Hierarchies::V2(root) => {
            let top = root.join(&place.id);
            // The kubelet delegates further down by itself; down to its root we do.
            delegate(&root)?;
            make_directory(&top)?;
            delegate(&top)?;
            for leaf in &leaves {
                make_directory(&top.join(leaf))?;
            }
            for node in nodes {
                delegate(&top.join(node.to_string()))?;
            }
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// In v1 a new cpuset is empty, and no process can enter it until it has processors and memory.
fn make_v1(parent: &Path, path: &Path) -> Result<()> {
    make_directory(path)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            fs::write(path.join(file), value.trim())
                .with_context(|| format!("cannot write {file} of the cgroup {}", path.display()))?;
        }
    }
    Ok(())
}

/// v2: hands every controller that this cgroup has on to its children.
fn delegate(path: &Path) -> Result<()> {
    let has = fs::read_to_string(path.join("cgroup.controllers"))
        .with_context(|| format!("cannot read the controllers of the cgroup {}", path.display()))?;
    let control = path.join("cgroup.subtree_control");
    for controller in has.split_whitespace() {
        let written = fs::write(&control, format!("+{controller}"));
        // The others (io, rdma...) are of no use to a kubelet, so that one which resists does not matter.
        if ["cpu", "cpuset", "memory", "pids"].contains(&controller) {
            written.with_context(|| {
                format!(
                    "cannot hand the cgroup controller {controller} of {} on to its children (inside a container, \
                     move its processes out of that cgroup, or run with the host's cgroup namespace)",
                    path.display()
                )
            })?;
        }
    }
    Ok(())
}

fn tops(place: &Place) -> Vec<PathBuf> {
    let Ok(hierarchies) = Hierarchies::of_this_machine() else { return Vec::new() };
    hierarchies.roots().iter().map(|root| root.join(&place.id)).filter(|top| top.is_dir()).collect()
}

/// The cgroups that a daemon enters.
pub(crate) fn system(place: &Place) -> Vec<PathBuf> {
    tops(place).into_iter().map(|top| top.join(SYSTEM)).filter(|path| path.is_dir()).collect()
}

/// All processes in the cluster's cgroups.
pub(crate) fn processes(place: &Place) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for top in tops(place) {
        for directory in below(&top) {
            let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    // 0 stands for a process of another pid namespace: not ours to see.
    found.remove(&0);
    found
}

/// The directory and all below it, parents first.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        found.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    found
}

/// The cluster's cgroups that exist.
pub(crate) fn existing(place: &Place) -> Vec<PathBuf> {
    tops(place)
}

/// Removes them; their processes must be gone, the kernel may take a moment to notice.
pub(crate) fn remove(place: &Place) -> Result<()> {
    wait_for("the cluster's cgroups can be removed", Duration::from_secs(10), || {
        for top in tops(place) {
            for directory in below(&top).iter().rev() {
                let _busy_for_a_moment = fs::remove_dir(directory);
            }
        }
        Ok(tops(place).is_empty())
    })
}
