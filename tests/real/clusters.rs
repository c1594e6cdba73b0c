//! The clusters of the scenarios: a whole one with Pullguard for nearly all of them, and a control plane alone.
//!
//! Scenarios share a cluster and run side by side; one that takes Pullguard away plays alone, and one that makes nodes up
//! has a control plane of its own: the others count their nodes.

use std::fs::File;
use std::sync::{OnceLock, RwLock};

use anyhow::{Result, anyhow};
use cluster::{Cluster, Node, Options, nodes_possible};

use crate::stage::{self, repository};
use crate::world::{NO_BRAKE, ON_A, ON_B, ON_BOTH, Scene};
use crate::{Needs, audit_log};

const NAME: &str = "test";

/// The control plane without nodes.
const PLANE: &str = "plane";

/// Set: the cluster stays, and the next run takes it as it is. For whoever writes scenarios.
const KEEP: &str = "PULLGUARD_TEST_KEEP";

/// The clusters, each brought up by the first scenario that needs it.
#[derive(Default)]
pub struct World {
    whole: Venue,
    plane: Venue,
    alone: RwLock<()>,
}

#[derive(Default)]
struct Venue {
    cluster: OnceLock<Result<Cluster, String>>,
    /// Held until the cluster is down again.
    sole: OnceLock<File>,
}

impl Venue {
    fn cluster(&self, name: &str, make: fn() -> Result<Cluster>) -> Result<&Cluster> {
        let make = || -> Result<Cluster> {
            let sole = stage::sole_run(name)?;
            self.sole.get_or_init(|| sole);
            if std::env::var_os(KEEP).is_none() {
                // What a run that was killed left has policies and pods of its own.
                Cluster::down(name)?;
            }
            make()
        };
        let made = self.cluster.get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow!("there is no cluster: {error}"))
    }

    fn strike(&self, name: &str) {
        if self.sole.get().is_some()
            && std::env::var_os(KEEP).is_none()
            && let Err(error) = Cluster::down(name)
        {
            eprintln!("{error:#}");
        }
    }
}

/// The whole cluster with Pullguard, or, without root, its control plane with the definitions alone.
fn make_whole() -> Result<Cluster> {
    let options = Options { api_server_flags: audit_log::flags()?, ..Options::named(NAME) };
    let cluster = Cluster::up(&options)?;
    if nodes_possible() {
        cluster.import(Node::A, ON_A)?;
        cluster.import(Node::B, ON_B)?;
        for node in cluster.nodes() {
            cluster.import(node, ON_BOTH)?;
        }
        stage::install(&cluster)?;
        cluster.kubectl_ok(&["set", "env", "deployment/pullguard", "--namespace=pullguard", NO_BRAKE])?;
        stage::wait_installed(&cluster)?;
    } else {
        let crds = repository().join("manifests/base/crds.yaml");
        cluster.kubectl_ok(&["apply", "--server-side", "-f", &crds.display().to_string()])?;
    }
    Ok(cluster)
}

/// Nodes without kubelets stay as they are made: nobody taints or judges them. And tolerations may compare numbers, which is
/// alpha.
fn make_plane() -> Result<Cluster> {
    let numbers = || vec!["--feature-gates=TaintTolerationComparisonOperators=true".to_owned()];
    Cluster::up(&Options {
        nodes: 0,
        api_server_flags: numbers(),
        // The taint manager has the gate too, or it evicts what the scheduler has bound for such a toleration.
        controller_manager_flags: [vec!["--controllers=*,-node-lifecycle-controller".to_owned()], numbers()].concat(),
        scheduler_flags: numbers(),
        ..Options::named(PLANE)
    })
}

impl World {
    /// Plays a scenario in a namespace of its own, and where it needs that, while no other one plays.
    pub fn play(&self, name: &'static str, needs: Needs, act: fn(&Scene<'_>) -> Result<()>) -> Result<()> {
        let (cluster, alone) = match needs {
            Needs::ControlPlane | Needs::Nodes => (self.whole.cluster(NAME, make_whole)?, false),
            Needs::NodesAlone => (self.whole.cluster(NAME, make_whole)?, true),
            Needs::Plane => (self.plane.cluster(PLANE, make_plane)?, false),
        };
        let shared = if alone { None } else { Some(self.alone.read().unwrap_or_else(|held| held.into_inner())) };
        let sole = if alone { Some(self.alone.write().unwrap_or_else(|held| held.into_inner())) } else { None };
        let scene = Scene::open(cluster, name)?;
        let played = act(&scene).map_err(|error| anyhow!("{error:#}\n{}", scene.account()));
        drop((scene, shared, sole));
        played
    }
}

/// Each test holds the world, so it ends with the last of them, before the runner's last word.
impl Drop for World {
    fn drop(&mut self) {
        self.whole.strike(NAME);
        self.plane.strike(PLANE);
    }
}
