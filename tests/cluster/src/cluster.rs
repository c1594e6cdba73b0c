//! A handle on a cluster that is up: its addresses, its kubectl, and its components to stop and start.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::component::Component;
use crate::network::Network;
use crate::node::{self, Node};
use crate::options::Options;
use crate::place::Place;
use crate::process::{self, Program};
use crate::shell::{output_with_input, run, succeeds, wait_for, without_proxy};
use crate::{control_plane, down, mounts, network, registry};

/// A component has this long to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The port of the kubelet's own health, by default.
const KUBELET_HEALTH: u16 = 10_248;

/// What has to be known of a cluster beyond its name; kept in `cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) network: Network,
    pub(crate) options: Options,
    pub(crate) bin: PathBuf,
    /// Set when everything was ready once: anything less is the wreck of a crash.
    pub(crate) complete: bool,
}

/// A cluster that is up, or that somebody stopped parts of. Dropping it changes nothing: the cluster outlives its makers
/// until [`Cluster::down`].
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) place: Place,
    pub(crate) record: Record,
}

impl Cluster {
    /// A handle on a cluster that another process brought up.
    pub fn attach(name: &str) -> Result<Self> {
        let place = Place::of(name)?;
        match Self::recorded(&place)? {
            Some(cluster) if cluster.record.complete => Ok(cluster),
            _ => bail!("cluster {name} is not up"),
        }
    }

    pub(crate) fn recorded(place: &Place) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(place.record()) else { return Ok(None) };
        // A record that was cut by a crash, or that an older version wrote: no cluster that we could use.
        let Ok(record) = serde_json::from_str(&text) else { return Ok(None) };
        Ok(Some(Self { place: place.clone(), record }))
    }

    /// Stops and removes everything of the cluster; without one, or with the ruins of one, it is as good.
    pub fn down(name: &str) -> Result<()> {
        let place = Place::of(name)?;
        let _lock = place.lock()?;
        down::down(&place)?;
        down::reap_orphans()
    }

    /// The names of all clusters that this checkout ever had: each left its lock.
    pub fn names() -> Result<Vec<String>> {
        let home = Place::of(crate::DEFAULT_NAME)?.home;
        let files = fs::read_dir(home).into_iter().flatten().flatten();
        Ok(files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".lock")?.to_owned())).collect())
    }

    /// What of a cluster of this name exists on the machine; after `down`: nothing.
    pub fn leftovers(name: &str) -> Result<Vec<String>> {
        Ok(down::leftovers(&Place::of(name)?))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// A kubeconfig of the administrator; mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    /// The nodes; none without root.
    pub fn nodes(&self) -> Vec<Node> {
        Node::first(self.record.options.nodes)
    }

    /// The folder of kubectl, crane, ctr and all the others.
    pub fn bin(&self) -> &Path {
        &self.record.bin
    }

    /// The address of the API server and of the registries.
    pub fn address(&self) -> String {
        self.record.network.address()
    }

    /// The host's address as the API server and pods see it: a test's own webhook or proxy can listen there.
    pub fn host_address(&self) -> String {
        self.record.network.host()
    }

    /// `host:port` of the open registry, as nodes and this machine reach it. `registry.local` means the same to nodes.
    pub fn registry(&self) -> String {
        registry::address(self.record.network, registry::PORT)
    }

    /// `host:port` of the registry that asks for [`crate::REGISTRY_USER`] and [`crate::REGISTRY_PASSWORD`].
    pub fn auth_registry(&self) -> String {
        registry::address(self.record.network, registry::AUTH_PORT)
    }

    /// Where a component logs; the file stays when the cluster goes.
    pub fn log(&self, component: Component) -> PathBuf {
        process::log(&self.place, &component.to_string())
    }

    /// Where the kubelet of a node looks for static pods.
    pub fn static_pods(&self, node: Node) -> PathBuf {
        self.place.node(node).join("manifests")
    }

    /// The network namespace; none without root.
    pub fn netns(&self) -> Option<PathBuf> {
        match self.record.network {
            Network::Namespace { .. } => Some(network::namespace(&self.place)),
            Network::Loopback { .. } => None,
        }
    }

    /// A program that runs where the cluster's addresses and loopback are. What is started so is ended by `down`.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let prefix = self.record.network.prefix(&self.place);
        match prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// kubectl as administrator, ready for arguments.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.record.bin.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.place.state.join("kubectl-cache"));
        without_proxy(&mut command);
        command
    }

    /// Runs kubectl; an exit code other than 0 is an output like any other.
    pub fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_stdin(args, "")
    }

    /// Runs kubectl with text on its standard input, as for `apply -f -`.
    pub fn kubectl_stdin(&self, args: &[&str], input: &str) -> Result<Output> {
        output_with_input(self.kubectl_command().args(args), input.as_bytes())
    }

    /// Standard output of a kubectl that must succeed.
    pub fn kubectl_ok(&self, args: &[&str]) -> Result<String> {
        Ok(String::from_utf8(run(self.kubectl_command().args(args))?.stdout)?)
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let output = self.kubectl_stdin(&["apply", "-f", "-"], manifests)?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether a component's process lives.
    pub fn is_running(&self, component: Component) -> bool {
        process::running(&self.place, &component.to_string()).is_some()
    }

    /// Ends a component: SIGTERM, and SIGKILL for one that does not listen. Pods outlive their kubelet and containerd.
    pub fn stop(&self, component: Component) -> Result<()> {
        process::stop(&self.place, &component.to_string(), PATIENCE)
    }

    /// Ends a component without a warning, as a crash does.
    pub fn kill(&self, component: Component) -> Result<()> {
        process::stop(&self.place, &component.to_string(), Duration::ZERO)
    }

    /// Halts a component where it stands (SIGSTOP): connections stay open and nobody answers.
    pub fn freeze(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::STOP)
    }

    /// Lets a halted component go on.
    pub fn thaw(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::CONT)
    }

    fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        let pid = process::running(&self.place, &component.to_string())
            .with_context(|| format!("{component} does not run"))?;
        process::signal(pid, signal);
        Ok(())
    }

    /// Starts a component that is not running, and waits until it serves. A kubelet's node may need seconds more to be
    /// Ready again: see [`Cluster::wait_ready`].
    pub fn start(&self, component: Component) -> Result<()> {
        if !self.is_running(component) {
            self.spawn(component)?;
        }
        self.wait_serving(component)?;
        // etcd answers only to who has a certificate: whether it serves is seen by whom it serves.
        if component == Component::Etcd && self.is_running(Component::ApiServer) {
            self.wait_serving(Component::ApiServer)?;
        }
        Ok(())
    }

    /// Stops and starts a component.
    pub fn restart(&self, component: Component) -> Result<()> {
        self.stop(component)?;
        self.start(component)
    }

    pub(crate) fn spawn(&self, component: Component) -> Result<()> {
        let mut prefix = self.record.network.prefix(&self.place);
        match component {
            Component::Containerd(node) | Component::Kubelet(node) => {
                prefix = mounts::enter(&self.place, node, prefix)?
            }
            Component::Etcd
            | Component::ApiServer
            | Component::ControllerManager
            | Component::Scheduler
            | Component::KubeProxy
            | Component::Registry
            | Component::AuthRegistry => {}
        }
        process::spawn(&self.place, &component.to_string(), &prefix, &self.program(component)?)
    }

    fn program(&self, component: Component) -> Result<Program> {
        let (place, network, options) = (&self.place, self.record.network, &self.record.options);
        let (file, args) = match component {
            Component::Etcd => ("etcd", control_plane::etcd(place, network)),
            Component::ApiServer => ("kube-apiserver", control_plane::api_server(place, network, options)),
            Component::ControllerManager => {
                ("kube-controller-manager", control_plane::controller_manager(place, options))
            }
            Component::Scheduler => ("kube-scheduler", control_plane::scheduler(place, options)),
            Component::KubeProxy => ("kube-proxy", control_plane::kube_proxy(place, network)?),
            Component::Registry => ("registry", registry::prepare(place, network, registry::PORT)?),
            Component::AuthRegistry => ("registry", registry::prepare(place, network, registry::AUTH_PORT)?),
            Component::Containerd(node) => ("containerd", node::containerd_args(place, node)),
            Component::Kubelet(node) => ("kubelet", node::kubelet_args(place, network, node)),
        };
        Ok(Program { path: self.record.bin.join(file), args })
    }

    /// Waits until a component answers, or says which one did not, and why.
    pub(crate) fn wait_serving(&self, component: Component) -> Result<()> {
        let limit = Duration::from_secs(60);
        let asked = || -> Result<bool> {
            if !self.is_running(component) {
                bail!("it ended");
            }
            Ok(match component {
                Component::ApiServer => {
                    succeeds(self.kubectl_command().args(["get", "--raw=/readyz", "--request-timeout=2s"]))
                }
                Component::Containerd(node) => UnixStream::connect(self.place.containerd_socket(node)).is_ok(),
                // Its answer to /healthz is not asked for: it opens the port when it has begun to look after pods.
                Component::Kubelet(node) => {
                    TcpStream::connect((self.record.network.node(node), KUBELET_HEALTH)).is_ok()
                }
                Component::Registry => TcpStream::connect(self.registry()).is_ok(),
                Component::AuthRegistry => TcpStream::connect(self.auth_registry()).is_ok(),
                Component::Etcd | Component::ControllerManager | Component::Scheduler | Component::KubeProxy => true,
            })
        };
        wait_for("it answers", limit, asked).map_err(|error| self.failure(component, &error))
    }

    /// One sentence on what failed, the end of its log, and where the log is.
    pub(crate) fn failure(&self, component: Component, error: &anyhow::Error) -> anyhow::Error {
        let path = self.log(component);
        let log = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n");
        anyhow!(
            "{component} of cluster {} failed: {error}; its log is {} and ends with:\n{tail}",
            self.place.name,
            path.display()
        )
    }

    /// Waits until every node is Ready and pods can be made in the default namespace.
    pub fn wait_ready(&self) -> Result<()> {
        let limit = Duration::from_secs(60);
        for node in self.nodes() {
            let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            wait_for(&format!("{node} is Ready"), limit, || {
                if !self.is_running(Component::Kubelet(node)) {
                    bail!("it ended");
                }
                let output = self.kubectl(&["get", "node", &node.to_string(), "-o", condition])?;
                Ok(output.stdout == b"True")
            })
            .map_err(|error| self.failure(Component::Kubelet(node), &error))?;
        }
        wait_for("pods can be made in the default namespace", limit, || {
            Ok(self.kubectl(&["get", "serviceaccount", "default"])?.status.success())
        })
        .map_err(|error| self.failure(Component::ControllerManager, &error))
    }
}
