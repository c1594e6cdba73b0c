//! Where a cluster keeps what it makes, and under which names: everything here follows from the cluster's name and the
//! checkout alone, so that whatever a crash left behind is found again without any record.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::node::Node;

/// The environment variable that every process of a cluster carries; its value is `id/component`.
pub(crate) const MARK: &str = "PULLGUARD_CLUSTER_PROCESS";

/// Parent of the short directories that hold sockets: a socket's path must fit into 108 bytes, a checkout's may not.
pub(crate) const RUN: &str = "/run/pullguard";

/// A kubelet's sockets lie up to 42 bytes below the state directory.
const LONGEST_STATE: usize = 60;

/// The names and directories of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// Unique on the machine: two checkouts may both have a cluster `main`. Names the network namespace and the cgroups.
    pub(crate) id: String,
    /// `target/cluster`.
    pub(crate) home: PathBuf,
    /// All files, mode 0700; removed by `down`.
    pub(crate) state: PathBuf,
    /// Logs outlive the cluster: a failed run is read after it was torn down.
    pub(crate) logs: PathBuf,
    /// Sockets, and `home`, which says whose this is.
    pub(crate) run: PathBuf,
    /// Kubelets' root directories when `state` is too long a path for their sockets.
    pub(crate) spill: PathBuf,
}

impl Place {
    pub(crate) fn of(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(plain) || name == "logs" || name == "env" {
            bail!("{name:?} is no name for a cluster: up to 20 of a-z, 0-9 and '-', and neither logs nor env");
        }
        let home = checkout()?.join("target/cluster");
        Ok(Self::at(name, &home, &home.join(name)))
    }

    fn at(name: &str, home: &Path, state: &Path) -> Self {
        let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let key: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self {
            name: name.to_owned(),
            id: format!("pullguard-{name}-{key}"),
            home: home.to_owned(),
            state: state.to_owned(),
            logs: home.join("logs").join(name),
            run: Path::new(RUN).join(&key),
            spill: Path::new("/var/lib/pullguard").join(&key),
        }
    }

    /// Clusters on this machine whose checkout is gone: their `run/home` names a directory that no longer exists.
    pub(crate) fn orphans() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(RUN) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("home")).ok())
            .map(PathBuf::from)
            .filter(|state| !state.exists())
            .filter_map(|state| {
                let name = state.file_name()?.to_str()?;
                Some(Self::at(name, state.parent()?, &state))
            })
            .collect()
    }

    /// Held while a cluster goes up or down: two makes side by side take turns.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.home).with_context(|| format!("cannot make {}", self.home.display()))?;
        let path = self.home.join(format!("{}.lock", self.name));
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    pub(crate) fn is_default(&self) -> bool {
        self.name == crate::DEFAULT_NAME
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        if self.is_default() { self.home.join("env") } else { self.state.join("env") }
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("cluster.json")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    pub(crate) fn pki(&self, file: &str) -> String {
        self.state.join("pki").join(file).display().to_string()
    }

    pub(crate) fn node(&self, node: Node) -> PathBuf {
        self.state.join(node.to_string())
    }

    pub(crate) fn kubelet_root(&self, node: Node) -> PathBuf {
        if self.state.as_os_str().len() <= LONGEST_STATE {
            self.node(node).join("kubelet")
        } else {
            self.spill.join(node.to_string())
        }
    }

    pub(crate) fn containerd_socket(&self, node: Node) -> PathBuf {
        self.run.join(format!("{node}.sock"))
    }
}

/// The checkout that this crate was built in.
fn checkout() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(Path::to_path_buf).context("the crate is not in tests/cluster of a checkout")
}

/// The folder with go.mod and build.sh.
pub(crate) fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}
