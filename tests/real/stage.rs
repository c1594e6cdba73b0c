//! What the demo and the tests on the real cluster share: Pullguard installed as a user would, and waits that end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;

const POLL: Duration = Duration::from_millis(300);
/// What takes long is asked for less often: on a small machine the questions would be most of the work.
const SLOWEST: Duration = Duration::from_millis(1500);

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The manifests for a cluster whose nodes are all young.
pub fn manifests() -> String {
    repository().join("manifests/overlays/dev").display().to_string()
}

/// The image that `make image` built.
fn image() -> Result<PathBuf> {
    let path = repository().join("target/image/pullguard.tar");
    ensure!(path.is_file(), "there is no image of Pullguard: `make image` builds it");
    Ok(path)
}

/// Asks until there is an answer. An answer that does not come is an error that says what was waited for.
pub fn until<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut pause = POLL;
    loop {
        let late = Instant::now() >= end;
        match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if late => bail!("waited {seconds} s in vain until {what}"),
            Err(error) if late => return Err(error.context(format!("waited {seconds} s in vain until {what}"))),
            // A question may fail while parts of the cluster come and go.
            Ok(None) | Err(_) => {
                sleep(pause);
                pause = (pause * 5 / 4).min(SLOWEST);
            }
        }
    }
}

/// The right to the cluster of this name, as long as the file is held: a second run would take the first one's cluster away.
pub fn sole_run(cluster: &str) -> Result<File> {
    let folder = repository().join("target");
    fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(format!("{cluster}.run")))?;
    if file.try_lock().is_err() {
        eprintln!("waiting until the other run on cluster {cluster} has ended");
        until(&format!("the other run on cluster {cluster} has ended"), 1800, || Ok(file.try_lock().ok()))?;
    }
    Ok(file)
}

/// Loads the image on every node, applies the manifests, waits until both replicas are ready.
pub fn install(cluster: &Cluster) -> Result<()> {
    let image = image()?;
    for node in cluster.nodes() {
        cluster.load_tar(node, &image)?;
    }
    cluster.kubectl_ok(&["apply", "--kustomize", &manifests()])?;
    wait_installed(cluster)
}

/// Waits until both replicas are ready.
pub fn wait_installed(cluster: &Cluster) -> Result<()> {
    let rollout = ["rollout", "status", "deployment/pullguard", "--namespace=pullguard", "--timeout=120s"];
    let rolled = cluster.kubectl_ok(&rollout).map(drop);
    rolled.with_context(|| {
        let look = ["describe", "pods", "--namespace=pullguard"];
        format!("Pullguard does not become ready: {}", cluster.kubectl_ok(&look).unwrap_or_default())
    })
}
