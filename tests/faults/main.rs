//! The runtime half against a real control plane, while things go wrong between the two: leaders die between any two writes,
//! watches are cut, the API server and etcd restart, clocks jump, everything fails at once.
//!
//! The kubelets are played by the test, so that each moment can be chosen; what real kubelets do is in `tests/real`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

mod brakes;
mod clock;
mod crash;
mod outage;
mod puppet;
mod race;
mod replica;
mod scale;
mod stage;
mod wire;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use stage::Stage;

type Play = for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, Result<()>>;

/// Names each function as a test.
macro_rules! scenarios {
    ($($room:ident: $($act:ident),+ $(,)?;)+) => {
        vec![$($((concat!(stringify!($room), "::", stringify!($act)), (|stage| Box::pin($room::$act(stage))) as Play)),+),+]
    };
}

/// The control plane, brought up by the first scenario and taken down after the last.
type Shared = Arc<OnceLock<Result<Stage, String>>>;

fn play(shared: &Shared, act: Play) -> Result<()> {
    let stage = shared.get_or_init(|| Stage::up().map_err(|error| format!("{error:#}")));
    let stage = stage.as_ref().map_err(|error| anyhow!("there is no control plane: {error}"))?;
    stage.runtime.block_on(act(stage)).map_err(|error| anyhow!("{error:#}\n{}", stage.aftermath()))
}

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("another provider of cryptography is installed already");
        return ExitCode::FAILURE;
    }
    // RUST_LOG=pullguard=info: what the replicas say of themselves, for whoever looks for a cause. Else nothing: that a
    // connection is refused is what these tests are about.
    let quiet = EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(quiet).with_writer(std::io::stderr).init();
    let mut arguments = Arguments::from_args();
    // Each has replicas of its own, which look after the whole cluster: two at once would do each other's work.
    arguments.test_threads = Some(1);
    let all: Vec<(&str, Play)> = scenarios! {
        crash:
            killed_before_or_after_any_write_the_next_leader_completes_it_and_does_nothing_twice,
            two_leaders_at_once_do_it_once;
        race:
            a_pod_that_starts_between_the_decision_and_failure_target_keeps_its_job,
            a_pod_that_starts_between_the_decision_and_its_deletion_is_not_deleted;
        outage:
            an_api_server_and_an_etcd_that_restart_forget_nothing_and_convict_nobody_else,
            a_watch_that_comes_back_with_410_gone_finds_out_what_has_changed_meanwhile;
        clock:
            a_clock_that_jumps_an_hour_keeps_nobody_waiting_and_convicts_nobody_early;
        brakes:
            while_a_registry_is_suspect_a_clear_no_is_concluded_from_and_what_is_unclear_waits,
            a_node_that_loses_its_store_holds_what_it_may_be_to_blame_for_and_nothing_else;
        scale:
            failure_target_is_accepted_within_a_second_of_the_end_of_the_grace,
            the_55_pods_of_the_incident_are_one_failure_and_54_deletions,
            five_hundred_jobs_at_once_take_six_writes_each_at_most,
            as_many_jobs_as_the_environment_says;
    };
    let shared = Shared::default();
    let trials = all.into_iter().map(|(name, act)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || play(&shared, act).map_err(|error| format!("{error:#}").into()))
    });
    let trials = trials.collect();
    // The tests hold it, so the control plane goes with the last of them, before the runner's last word.
    drop(shared);
    libtest_mimic::run(&arguments, trials).exit_code()
}
