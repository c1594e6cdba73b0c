//! A clock that jumps. The image is no reference: nodes that are younger than the jump would be young, and prove nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use pullguard::shell::world::Clock;

use crate::puppet::Puppet;
use crate::replica::Replica;
use crate::stage::Stage;
use crate::wire::Wire;

const HOUR: i64 = 3_600;

pub async fn a_clock_that_jumps_an_hour_keeps_nobody_waiting_and_convicts_nobody_early(stage: &Stage) -> Result<()> {
    let ahead = Arc::new(AtomicI64::new(0));
    let seconds = Arc::clone(&ahead);
    let clock = Clock::new(move || {
        let by = SignedDuration::from_secs(seconds.load(Ordering::Relaxed));
        Timestamp::now().checked_add(by).unwrap_or(Timestamp::MAX)
    });
    let replica = Replica::start(stage.config().await?, Wire::default(), clock)?;

    // Back, in the middle of a grace of 4 s: it ends all the same.
    let scene = stage.open("clock-back", "4s").await?;
    let _puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    scene.job("batch", "Absent:1").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ahead.store(-HOUR, Ordering::Relaxed);
    scene.assert_failed_by_us("batch", 40).await?;

    // Ahead by two hours, in the middle of a grace of 30 s: nobody has waited for an hour because a clock says so.
    let scene = stage.open("clock-ahead", "30s").await?;
    let _puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    scene.job("batch", "Absent:1").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ahead.store(HOUR, Ordering::Relaxed);
    // A jump counts for at most 20 s of the 30.
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.assert_untouched("batch").await?;
    ahead.store(0, Ordering::Relaxed);
    scene.assert_failed_by_us("batch", 90).await?;
    replica.kill().await;
    Ok(())
}
