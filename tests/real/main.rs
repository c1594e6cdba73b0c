//! Pullguard on a real Kubernetes: real API server, real kubelets, real registry. Each test is one sentence of the contract.
//!
//! One cluster for nearly all of them, each in a namespace of its own. Where nodes are not possible, what needs them is ignored.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

mod access;
mod admission;
mod answer;
mod arrival;
mod attempts;
mod audit_log;
mod brake;
mod calls;
mod check;
mod clusters;
mod denied;
mod doctor;
mod explained;
mod install;
mod jobs;
mod mended;
mod objects;
mod owners;
mod policy;
mod presence;
mod props;
mod proxy;
mod reader;
mod recreation;
mod registry;
mod replicas;
mod rescue;
mod runtime;
mod scheduler;
mod simulated;
mod stage;
mod updates;
mod wire;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use cluster::nodes_possible;
use libtest_mimic::{Arguments, Trial};

use clusters::World;
use world::Scene;

/// Scenarios mostly wait: for the kubelets, for a grace, for the Job controller.
const AT_ONCE: usize = 4;

/// What a scenario takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    ControlPlane,
    Nodes,
    /// Nodes, and that no other scenario plays meanwhile.
    NodesAlone,
    /// A control plane whose nodes the scenario makes up.
    Plane,
}

struct Scenario {
    name: &'static str,
    needs: Needs,
    act: fn(&Scene<'_>) -> Result<()>,
}

/// Names each function as a test.
macro_rules! scenarios {
    ($($needs:ident: $($act:ident),+ $(,)?;)+) => {
        /// All scenarios of this file.
        pub fn scenarios() -> Vec<crate::Scenario> {
            vec![$($(crate::Scenario { name: stringify!($act), needs: crate::Needs::$needs, act: $act }),+),+]
        }
    };
}
use scenarios;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("another provider of cryptography is installed already");
        return ExitCode::FAILURE;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let possible = nodes_possible();
    let world = Arc::new(World::default());
    // The long ones first.
    let rooms = [
        ("scheduler", scheduler::scenarios()),
        ("access", access::scenarios()),
        ("registry", registry::scenarios()),
        ("admission", admission::scenarios()),
        ("jobs", jobs::scenarios()),
        ("arrival", arrival::scenarios()),
        ("runtime", runtime::scenarios()),
        ("owners", owners::scenarios()),
        ("attempts", attempts::scenarios()),
        ("recreation", recreation::scenarios()),
        ("denied", denied::scenarios()),
        ("explained", explained::scenarios()),
        ("brake", brake::scenarios()),
        ("mended", mended::scenarios()),
        ("answer", answer::scenarios()),
        ("calls", calls::scenarios()),
        ("check", check::scenarios()),
        ("objects", objects::scenarios()),
        ("policy", policy::scenarios()),
        ("presence", presence::scenarios()),
        ("replicas", replicas::scenarios()),
        ("rescue", rescue::scenarios()),
        ("updates", updates::scenarios()),
        ("doctor", doctor::scenarios()),
        ("install", install::scenarios()),
    ];
    let scenarios = rooms.into_iter().flat_map(|(room, all)| all.into_iter().map(move |scenario| (room, scenario)));
    // Those that play alone come last: the others need not wait for them.
    let (alone, shared): (Vec<_>, Vec<_>) = scenarios.partition(|(_, scenario)| scenario.needs == Needs::NodesAlone);
    let trials = shared.into_iter().chain(alone).map(|(room, Scenario { name, needs, act })| {
        let ignored = matches!(needs, Needs::Nodes | Needs::NodesAlone) && !possible;
        if ignored && !arguments.list {
            eprintln!("SKIPPED: {room}::{name} (nodes take root and the right to make network namespaces)");
        }
        let world = Arc::clone(&world);
        let play = move || world.play(name, needs, act).map_err(|error| format!("{error:#}").into());
        Trial::test(format!("{room}::{name}"), play).with_ignored_flag(ignored)
    });
    let trials = trials.collect();
    // From here on the tests hold it, and the last one takes the cluster down.
    drop(world);
    libtest_mimic::run(&arguments, trials).exit_code()
}
