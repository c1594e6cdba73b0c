//! The beginning of a cluster: nothing is asked, nothing is assumed, and what a crash left is cleared away first.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Record};
use crate::component::Component;
use crate::image::TestImage;
use crate::network;
use crate::node::{self, Node};
use crate::options::Options;
use crate::place::Place;
use crate::shell::say;
use crate::{cgroup, credentials, down, prerequisites, registry};

impl Cluster {
    /// Brings a cluster up, or back to what it was: one that is complete only gets its stopped components started, one
    /// with other options or other binaries, or half a one, is removed first. Says on standard error what it does.
    pub fn up(options: &Options) -> Result<Self> {
        let started = Instant::now();
        let place = Place::of(&options.name)?;
        let name = &place.name;
        let _lock = place.lock()?;
        let mut options = options.clone();
        if usize::from(options.nodes) > Node::ALL.len() {
            bail!("{} nodes: a cluster has at most {}", options.nodes, Node::ALL.len());
        }
        let privileged = prerequisites::nodes_possible();
        if !privileged && options.nodes > 0 {
            say(name, "NOT ROOT, SO NO NODES: the control plane runs alone, on loopback");
            say(name, "SKIPPED: kubelet-a, kubelet-b, containerd-a, containerd-b, kube-proxy, registry, auth-registry");
            options.nodes = 0;
        }
        prerequisites::ensure_packages(name, options.nodes > 0, privileged)?;
        let bin = prerequisites::ensure_binaries()?;
        down::reap_orphans()?;

        if let Some(cluster) = Self::recorded(&place)?
            && cluster.record.complete
            && cluster.record.options == options
            && cluster.record.bin == bin
            && cluster.netns().is_none_or(|path| path.exists())
        {
            cluster.resume()?;
            return Ok(cluster);
        }
        down::down(&place)?;
        let cluster = Self::make(&place, options, &bin, privileged)?;
        say(
            name,
            &format!(
                "ready after {:.1} s; KUBECONFIG={}",
                started.elapsed().as_secs_f32(),
                cluster.kubeconfig().display()
            ),
        );
        Ok(cluster)
    }

    /// A second `up`: whatever was stopped or died meanwhile runs again.
    fn resume(&self) -> Result<()> {
        let stopped: Vec<_> =
            Component::of(&self.nodes()).into_iter().filter(|component| !self.is_running(*component)).collect();
        for component in &stopped {
            say(self.name(), &format!("starting {component} again"));
            self.spawn(*component)?;
        }
        for component in Component::of(&self.nodes()) {
            self.wait_serving(component)?;
        }
        self.wait_ready()?;
        crate::env::write(self)?;
        say(self.name(), "is up already");
        Ok(())
    }

    fn make(place: &Place, options: Options, bin: &Path, privileged: bool) -> Result<Self> {
        let name = &place.name;
        let nodes = Node::first(options.nodes);
        make_directories(place, privileged)?;
        let network = if privileged {
            let network = network::make_namespace(place)?;
            cgroup::make(place, &nodes)?;
            say(
                name,
                &format!("network namespace {} with {}, and cgroups of that name", place.id, network.everything()),
            );
            network
        } else {
            network::free_ports()?
        };
        let mut cluster =
            Self { place: place.clone(), record: Record { network, options, bin: bin.to_owned(), complete: false } };
        cluster.write_record()?;

        say(name, "certificates, tokens and configuration");
        credentials::make(place, network, &nodes)?;
        registry::docker_config(network, &place.state.join("docker"))?;
        for node in &nodes {
            node::prepare(place, network, bin, *node, &cluster.record.options.kubelet_config)?;
        }

        say(name, "starting etcd, kube-apiserver and what does not wait for them");
        let early = |component: &Component| {
            use Component::{ApiServer, AuthRegistry, Containerd, Etcd, Registry};
            matches!(component, Etcd | ApiServer | Registry | AuthRegistry | Containerd(_))
        };
        let (first, second): (Vec<_>, Vec<_>) = Component::of(&nodes).into_iter().partition(early);
        cluster.start_together(&first)?;
        for node in &nodes {
            let pause = TestImage::new(node::PAUSE).command(&["/bin/sleep", "2147483647"]);
            cluster.import_image(*node, &pause)?;
        }
        say(name, "starting the controllers and the scheduler, and what serves the nodes, if there are any");
        cluster.start_together(&second)?;
        if !nodes.is_empty() {
            say(name, "waiting until the nodes are Ready");
        }
        cluster.wait_ready()?;
        cluster.record.complete = true;
        cluster.write_record()?;
        crate::env::write(&cluster)?;
        Ok(cluster)
    }

    fn start_together(&self, components: &[Component]) -> Result<()> {
        for component in components {
            self.spawn(*component)?;
        }
        components.iter().try_for_each(|component| self.wait_serving(*component))
    }

    /// By renaming: a crash leaves the old record or the new one.
    fn write_record(&self) -> Result<()> {
        let draft = self.place.state.join("cluster.json.new");
        fs::write(&draft, serde_json::to_string_pretty(&self.record)?).context("cannot write the cluster's record")?;
        fs::rename(&draft, self.place.record()).context("cannot write the cluster's record")
    }
}

fn make_directories(place: &Place, privileged: bool) -> Result<()> {
    let private = |path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("cannot make {}", path.display()))
    };
    private(&place.state)?;
    for directory in ["pki", "pids", "etcd"] {
        private(&place.state.join(directory))?;
    }
    // The logs of the last cluster of this name end here.
    let _none_yet = fs::remove_dir_all(&place.logs);
    fs::create_dir_all(&place.logs).with_context(|| format!("cannot make {}", place.logs.display()))?;
    if privileged {
        private(&place.run)?;
        let whose = place.state.as_os_str().as_encoded_bytes();
        fs::write(place.run.join("home"), whose).with_context(|| format!("cannot write to {}", place.run.display()))?;
    }
    Ok(())
}
