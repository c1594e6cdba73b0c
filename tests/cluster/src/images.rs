//! Images on nodes and in registries.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::image::{TestImage, canonical};
use crate::node::{self, Node};
use crate::registry;
use crate::shell::{run, run_with_input, without_proxy};

impl Cluster {
    /// Puts a small image of this name on a node, without a registry. The node's status lists it 20 to 40 s later; a
    /// pod with pull policy Never runs at once. An image of that name that is there is replaced.
    pub fn import(&self, node: Node, name: &str) -> Result<()> {
        self.import_image(node, &TestImage::new(name))
    }

    /// Like [`Cluster::import`], with a platform or a size of its own.
    pub fn import_image(&self, node: Node, image: &TestImage) -> Result<()> {
        let import = ["images", "import", "--all-platforms", "-"];
        run_with_input(self.ctr(node).args(import), &image.archive()?)
            .map(drop)
            .with_context(|| format!("{} cannot be imported on {node}", image.name()))
    }

    /// Loads a docker or OCI archive.
    pub fn load_tar(&self, node: Node, path: &Path) -> Result<()> {
        run(self.ctr(node).args(["images", "import"]).arg(path))
            .map(drop)
            .with_context(|| format!("{} cannot be loaded on {node}", path.display()))
    }

    /// Takes an image off a node under this name.
    pub fn remove_image(&self, node: Node, name: &str) -> Result<()> {
        run(self.ctr(node).args(["images", "rm", "--sync", &canonical(name)])).map(drop)
    }

    /// The names of images on a node, as the runtime has them.
    pub fn list_images(&self, node: Node) -> Result<Vec<String>> {
        let output = run(self.ctr(node).args(["images", "ls", "--quiet"]))?;
        let names = String::from_utf8(output.stdout)?;
        // The CRI plugin keeps each image under its id as well.
        Ok(names.lines().filter(|name| !name.starts_with("sha256:")).map(str::to_owned).collect())
    }

    /// Puts a small image into the open registry; returns the reference that a pod pulls it by.
    pub fn push(&self, name: &str) -> Result<String> {
        self.push_image(&TestImage::new(name))
    }

    /// Like [`Cluster::push`], with a platform or a size of its own.
    pub fn push_image(&self, image: &TestImage) -> Result<String> {
        self.push_to(&self.registry(), image)
    }

    /// Puts it into the registry that asks for a password.
    pub fn push_with_password(&self, image: &TestImage) -> Result<String> {
        self.push_to(&self.auth_registry(), image)
    }

    /// Puts an index into the open registry that holds the image for its platform and for no other: what a runtime of
    /// another platform says of it is the usual "no match for platform". (Of a single image it looks at no platform.)
    pub fn push_index(&self, image: &TestImage) -> Result<String> {
        let reference = self.push_image(image)?;
        let append = ["index", "append", "--manifest", &reference, "--tag", &reference];
        run(self.crane().args(append)).map(|_| reference.clone())
    }

    fn push_to(&self, registry: &str, image: &TestImage) -> Result<String> {
        let reference = format!("{registry}/{}", image.name());
        // Tests push side by side, out of one process.
        static PUSHES: AtomicU64 = AtomicU64::new(0);
        let (process, push) = (std::process::id(), PUSHES.fetch_add(1, Ordering::Relaxed));
        let file = self.place.state.join(format!("push-{process}-{push}.tar"));
        fs::write(&file, image.archive()?).with_context(|| format!("cannot write {}", file.display()))?;
        let pushed = run(self.crane().arg("push").arg(&file).arg(&reference));
        let _only_space = fs::remove_file(&file);
        pushed.map(|_| reference)
    }

    /// crane, knowing the password of our registry and that it speaks plain HTTP; ready for arguments.
    pub fn crane(&self) -> Command {
        let mut command = Command::new(self.bin().join("crane"));
        command.arg("--insecure").env("DOCKER_CONFIG", self.place.state.join("docker"));
        without_proxy(&mut command);
        command
    }

    /// Makes a node pull what is of `host` by plain HTTP from `server` (`host:port`): a test's own registry, or one that
    /// stands in for another. It holds from the next pull on.
    pub fn trust_registry(&self, node: Node, host: &str, server: &str) -> Result<()> {
        registry::trust(&self.place, node, host, server)
    }

    /// ctr on the images that the kubelet of a node sees; ready for arguments.
    pub fn ctr(&self, node: Node) -> Command {
        node::ctr(&self.place, self.bin(), node)
    }
}
