//! Pullguard on a real Kubernetes: real API server, real kubelets, real registry. Each test is one sentence of the contract.
//!
//! One cluster for all of them, each in a namespace of its own. Where nodes are not possible, what needs them is ignored.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

mod admission;
mod install;
mod mended;
mod runtime;
mod stage;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use cluster::nodes_possible;
use libtest_mimic::{Arguments, Trial};

use world::{Scene, World};

/// Scenarios mostly wait: for the kubelets, for a grace, for the Job controller.
const AT_ONCE: usize = 4;

/// What a scenario takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    ControlPlane,
    Nodes,
    /// Nodes, and that no other scenario plays meanwhile.
    NodesAlone,
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
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let possible = nodes_possible();
    let world = Arc::new(World::default());
    let rooms = [
        ("admission", admission::scenarios()),
        ("mended", mended::scenarios()),
        ("runtime", runtime::scenarios()),
        ("install", install::scenarios()),
    ];
    let scenarios = rooms.into_iter().flat_map(|(room, all)| all.into_iter().map(move |scenario| (room, scenario)));
    // Those that play alone come last: the others need not wait for them.
    let (alone, shared): (Vec<_>, Vec<_>) = scenarios.partition(|(_, scenario)| scenario.needs == Needs::NodesAlone);
    let trials = shared.into_iter().chain(alone).map(|(room, Scenario { name, needs, act })| {
        let ignored = needs != Needs::ControlPlane && !possible;
        if ignored && !arguments.list {
            eprintln!("SKIPPED: {room}::{name} (nodes take root and the right to make network namespaces)");
        }
        let world = Arc::clone(&world);
        let alone = needs == Needs::NodesAlone;
        let play = move || world.play(name, alone, act).map_err(|error| format!("{error:#}").into());
        Trial::test(format!("{room}::{name}"), play).with_ignored_flag(ignored)
    });
    let trials = trials.collect();
    // From here on the tests hold it, and the last one takes the cluster down.
    drop(world);
    libtest_mimic::run(&arguments, trials).exit_code()
}
