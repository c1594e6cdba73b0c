//! The processes of a cluster: started so that they outlive us, found again without us, ended without ever touching a
//! stranger's. A process is ours if its environment carries our mark, if it is in our cgroups or in our network
//! namespace; a pid read from a file is believed only together with the mark.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup;
use crate::network;
use crate::place::{MARK, Place};
use crate::shell::wait_for;

/// A program to run as a component.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
}

impl Program {
    /// Its neighbours are on its PATH: containerd runs its shim so.
    fn folder(&self) -> String {
        self.path.parent().unwrap_or(Path::new("/usr/bin")).display().to_string()
    }
}

/// A shell that names itself, enters the cgroups and becomes the program: no moment at which a crash of ours would leave
/// a process that nothing finds.
const BECOME: &str = r#"ulimit -n 65536 2>/dev/null || true
echo $$ > "$1"; shift
for group in $GROUPS_TO_ENTER; do echo $$ > "$group/cgroup.procs" || exit 1; done
unset GROUPS_TO_ENTER
exec "$@""#;

/// Starts a process in the background, as a child of init. `prefix` is what enters its namespaces.
pub(crate) fn spawn(place: &Place, label: &str, prefix: &[String], program: &Program) -> Result<()> {
    let log = log(place, label);
    let open = || OpenOptions::new().create(true).append(true).open(&log);
    let pid_file = pid_file(place, label);
    // Not a left-over one: the new one says that the shell has begun.
    let _none = fs::remove_file(&pid_file);
    // None without root.
    let groups: Vec<_> = cgroup::system(place).iter().map(|path| path.display().to_string()).collect();
    let inherited = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("setsid")
        .args(["--fork", "sh", "-c", BECOME, "sh"])
        .arg(&pid_file)
        .args(prefix)
        .arg(&program.path)
        .args(&program.args)
        // Nothing of the caller's environment: a proxy set there would swallow the pulls from our registry.
        .env_clear()
        .env("PATH", format!("{}:{inherited}:/usr/local/sbin:/usr/sbin:/sbin", program.folder()))
        .env("HOME", &place.state)
        // The registry would look for a collector of traces.
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("GROUPS_TO_ENTER", groups.join(" "))
        .env(MARK, format!("{}/{label}", place.id))
        .stdin(Stdio::null())
        .stdout(open().with_context(|| format!("cannot write {}", log.display()))?)
        .stderr(open().with_context(|| format!("cannot write {}", log.display()))?)
        .status()
        .context("cannot run setsid")?;
    anyhow::ensure!(status.success(), "{label}: setsid: {status}");
    wait_for(&format!("{label} starts"), Duration::from_secs(5), || Ok(pid(&pid_file).is_some()))
}

pub(crate) fn log(place: &Place, label: &str) -> PathBuf {
    place.logs.join(format!("{label}.log"))
}

fn pid_file(place: &Place, label: &str) -> PathBuf {
    place.state.join("pids").join(label)
}

fn pid(file: &Path) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The pid of a component that runs.
pub(crate) fn running(place: &Place, label: &str) -> Option<i32> {
    let pid = pid(&pid_file(place, label))?;
    // In the middle of an exec a living process has no environment for a moment.
    for _look in 0..40 {
        if !environment(pid)?.is_empty() || zombie(pid) {
            break;
        }
        sleep(Duration::from_millis(5));
    }
    (mark(pid)? == format!("{}/{label}", place.id)).then_some(pid)
}

fn environment(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// The mark of a process, none for a stranger's, for a dead one, and for a zombie (its environment is empty).
fn mark(pid: i32) -> Option<String> {
    environment(pid)?
        .split(|byte| *byte == 0)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .find_map(|line| line.strip_prefix(MARK)?.strip_prefix('='))
        .map(str::to_owned)
}

/// Sends a signal; a process that is gone meanwhile is no failure.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = kill_process(pid, signal);
    }
}

/// Asks a component to end, and makes it end.
pub(crate) fn stop(place: &Place, label: &str, patience: Duration) -> Result<()> {
    let Some(pid) = running(place, label) else { return Ok(()) };
    signal(pid, if patience.is_zero() { Signal::KILL } else { Signal::TERM });
    // A halted (SIGSTOP) process takes a SIGTERM only when it goes on.
    signal(pid, Signal::CONT);
    let gone = || Ok(running(place, label).is_none());
    if wait_for("", patience, gone).is_err() {
        signal(pid, Signal::KILL);
        wait_for(&format!("{label} ends"), Duration::from_secs(10), gone)?;
    }
    Ok(())
}

/// Every living process of the cluster, whoever its parent: daemons, shims and containers.
pub(crate) fn all(place: &Place) -> BTreeSet<i32> {
    let mut found = cgroup::processes(place);
    let namespace = fs::metadata(network::namespace(place)).ok().map(|meta| (meta.dev(), meta.ino()));
    let ours = format!("{}/", place.id);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let marked = mark(pid).is_some_and(|mark| mark.starts_with(&ours));
        let inside = namespace.is_some()
            && fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| (meta.dev(), meta.ino())) == namespace;
        if marked || inside {
            found.insert(pid);
        }
    }
    // A caller that entered the namespace to tear it down would kill itself.
    found.retain(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id()) && !zombie(*pid));
    found
}

fn zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Ends all of them, without grace: nothing of a test cluster is worth saving.
pub(crate) fn kill_all(place: &Place) -> Result<()> {
    wait_for("all processes of the cluster end", Duration::from_secs(20), || {
        let living = all(place);
        for pid in &living {
            signal(*pid, Signal::KILL);
        }
        Ok(living.is_empty())
    })
}
