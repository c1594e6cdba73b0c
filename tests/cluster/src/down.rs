//! The end of a cluster, whatever state it is in: nothing here needs its record, its parent or its cooperation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::shell::{say, succeeds, wait_for};
use crate::{cgroup, mounts, network, process};

/// Stops and removes a cluster; without one it does nothing. The caller holds the lock.
pub(crate) fn down(place: &Place) -> Result<()> {
    if leftovers(place).is_empty() {
        return Ok(());
    }
    say(&place.name, "stopping and removing all of it");
    process::kill_all(place)?;
    unmount(place)?;
    network::remove(place)?;
    cgroup::remove(place)?;
    for directory in directories(place) {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    mounts::forget();
    if place.is_default() {
        let _not_written_yet = fs::remove_file(place.env_file());
    }
    // The kernel takes a namespace's links apart in the background.
    wait_for("", Duration::from_secs(10), || Ok(leftovers(place).is_empty()))
        .or_else(|_| bail!("of cluster {} these are still there: {}", place.name, leftovers(place).join(", ")))
}

/// Removes the clusters whose checkouts were deleted under them.
pub(crate) fn reap_orphans() -> Result<()> {
    for orphan in Place::orphans() {
        say(&orphan.name, &format!("its checkout {} is gone", orphan.home.display()));
        down(&orphan)?;
    }
    Ok(())
}

/// Everything of the cluster that exists, each in a few words; empty means that there is none.
pub(crate) fn leftovers(place: &Place) -> Vec<String> {
    let shown = |what: &str, path: &Path| format!("{what} {}", path.display());
    let mut found: Vec<String> = process::all(place).iter().map(|pid| format!("process {pid}")).collect();
    found.extend(mounted(place).iter().map(|path| shown("mount", path)));
    found.extend(network::links(place).iter().map(|link| format!("link {link}")));
    if network::namespace(place).exists() {
        found.push(format!("network namespace {}", place.id));
    }
    found.extend(cgroup::existing(place).iter().map(|path| shown("cgroup", path)));
    found.extend(directories(place).iter().map(|path| shown("directory", path)));
    found
}

fn directories(place: &Place) -> Vec<PathBuf> {
    // `run` last: its note of whose this is must outlive a removal that fails half way.
    [&place.state, &place.spill, &place.run].into_iter().filter(|path| path.exists()).cloned().collect()
}

/// Mount points below the cluster's directories, in the order of mounting. Those of its nodes are in their own mount
/// namespaces, and go with the last process of those.
fn mounted(place: &Place) -> Vec<PathBuf> {
    let ours = [&place.state, &place.spill, &place.run];
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // The kernel writes a space as \040.
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| ours.iter().any(|directory| path.starts_with(directory)))
        .collect()
}

fn unmount(place: &Place) -> Result<()> {
    wait_for("all mounts of the cluster can be taken off", Duration::from_secs(10), || {
        for path in mounted(place).iter().rev() {
            succeeds(Command::new("umount").arg(path));
        }
        Ok(mounted(place).is_empty())
    })
}
