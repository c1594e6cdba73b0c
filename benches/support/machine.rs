//! What Linux says of processes and threads.
//!
//! Enters: process ids and names of threads. Leaves: memory and processor time. Elsewhere than on Linux it is all zero.

use std::fs;
use std::time::Duration;

fn status_kib(process: &str, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// What a process (`self`, or a number) holds in memory now.
pub fn resident_kib(process: &str) -> u64 {
    status_kib(process, "VmRSS:")
}

/// The most that it ever held.
pub fn peak_kib(process: &str) -> u64 {
    status_kib(process, "VmHWM:")
}

pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The processor time of all threads of this process whose name begins so.
pub fn processor_time(of_threads: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds: u64 = times.split(' ').next()?.parse().ok()?;
        name.starts_with(of_threads).then_some(nanoseconds)
    });
    Duration::from_nanos(spent.sum())
}

/// How busy the machine is with others: the load average of the last minute, and its processors.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = load.split(' ').next().unwrap_or("?").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("load {minute} on {cores} cores")
}
