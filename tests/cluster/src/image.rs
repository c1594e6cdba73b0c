//! Images made without a Docker daemon: a docker-archive (a tar of layers, a config and a manifest), which containerd
//! imports and crane pushes. Test images hold a static busybox and bytes of their own; the product's image holds its
//! binary and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::shell::run;
use crate::tar::Tar;

/// A small image that a test asks for.
#[derive(Clone, Debug)]
pub struct TestImage {
    name: String,
    platform: String,
    padding: usize,
    command: Vec<String>,
}

impl TestImage {
    /// With every applet of busybox in /bin, a command that sleeps, and a marker file that no other image has: one image
    /// under two tags would be one entry in a node's list. (Debian's static `wget` crashes on its option -T.)
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            platform: format!("linux/{}", architecture()),
            padding: 0,
            command: vec!["/bin/sh".into(), "-c".into(), "while true; do sleep 3600; done".into()],
        }
    }

    /// As `os/architecture`: what the config claims, the contents stay the same.
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = platform.to_owned();
        self
    }

    /// So many bytes more: a node's list is sorted by size.
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let mut own = Tar::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        own.file("marker", 0o644, format!("{} {now}\n", self.name).as_bytes());
        if self.padding > 0 {
            own.file("padding", 0o644, &noise(self.padding, now));
        }
        Image {
            name: &self.name,
            platform: &self.platform,
            layers: vec![busybox_layer()?, own.finish()],
            entrypoint: &[],
            command: &self.command,
            user: "",
            // A shell as the first process of a container ignores SIGTERM: without this each deletion takes 30 s.
            stop_signal: "SIGKILL",
        }
        .archive()
    }
}

/// The image of a program that needs nothing beside itself.
pub fn program_image(name: &str, binary: &Path) -> Result<Vec<u8>> {
    let contents = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    if !contents.starts_with(b"\x7fELF") {
        bail!("{} is no Linux program: build it on Linux, or with Docker by the Dockerfile", binary.display());
    }
    if needs_a_loader(&contents) {
        bail!("{} is not statically linked: it could not start in an image that holds nothing else", binary.display());
    }
    let file = binary.file_name().and_then(|name| name.to_str()).context("the binary has no name")?;
    let mut layer = Tar::default();
    layer.file(file, 0o755, &contents);
    Image {
        name,
        platform: &format!("linux/{}", architecture()),
        layers: vec![layer.finish()],
        entrypoint: &[format!("/{file}")],
        command: &[],
        user: "65532:65532",
        stop_signal: "SIGTERM",
    }
    .archive()
}

struct Image<'a> {
    name: &'a str,
    platform: &'a str,
    layers: Vec<Vec<u8>>,
    entrypoint: &'a [String],
    command: &'a [String],
    user: &'a str,
    stop_signal: &'a str,
}

impl Image<'_> {
    fn archive(&self) -> Result<Vec<u8>> {
        let (os, architecture) =
            self.platform.split_once('/').with_context(|| format!("{:?} is no os/architecture", self.platform))?;
        let digests: Vec<String> = self.layers.iter().map(|layer| sha256(layer)).collect();
        let config = json!({
            "os": os,
            "architecture": architecture,
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "Env": ["PATH=/bin"],
                "User": self.user,
                "StopSignal": self.stop_signal,
                "WorkingDir": "/",
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>(),
            },
        })
        .to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        let layer_name = |digest: &String| format!("{digest}.tar");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [canonical(self.name)],
            "Layers": digests.iter().map(layer_name).collect::<Vec<_>>(),
        }]);
        let mut tar = Tar::default();
        tar.file("manifest.json", 0o644, manifest.to_string().as_bytes());
        tar.file(&config_name, 0o644, config.as_bytes());
        for (digest, layer) in digests.iter().zip(&self.layers) {
            tar.file(&layer_name(digest), 0o644, layer);
        }
        Ok(tar.finish())
    }
}

/// The name that the runtime gives an image: with host, `library/` and tag.
pub(crate) fn canonical(name: &str) -> String {
    let with_host = match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    let path = with_host.rsplit('/').next().unwrap_or_default();
    if path.contains(':') || path.contains('@') { with_host } else { format!("{with_host}:latest") }
}

fn busybox_layer() -> Result<Vec<u8>> {
    let path = busybox()?;
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let applets = String::from_utf8(run(Command::new(&path).arg("--list"))?.stdout)?;
    let mut layer = Tar::default();
    layer.directory("bin/", 0o755);
    layer.directory("etc/", 0o755);
    layer.directory("tmp/", 0o1777);
    layer.file("bin/busybox", 0o755, &program);
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    Ok(layer.finish())
}

/// A busybox that runs alone in an image.
pub(crate) fn busybox() -> Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static"]
        .iter()
        .map(PathBuf::from)
        .find(|path| fs::read(path).is_ok_and(|program| !needs_a_loader(&program)))
        .context("no statically linked busybox (Debian package busybox-static) was found: test images hold it")
}

/// Whether an ELF program of 64 bits names an interpreter (PT_INTERP), and so is dynamically linked.
fn needs_a_loader(program: &[u8]) -> bool {
    let number = |at: usize, width: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((start, size, count)) = headers() else { return true };
    (0..count).any(|index| number(start + index * size, 4).is_none_or(|kind| kind == 3))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress: xorshift.
fn noise(count: usize, seed: u128) -> Vec<u8> {
    let mut state = (seed as u64) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(count)
    .collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_canonical_as_the_runtime_does() {
        for (name, full) in [
            ("a", "docker.io/library/a:latest"),
            ("a:1", "docker.io/library/a:1"),
            ("team/a", "docker.io/team/a:latest"),
            ("localhost/a:1", "localhost/a:1"),
            ("10.0.0.1:5000/a", "10.0.0.1:5000/a:latest"),
        ] {
            assert_eq!(canonical(name), full);
        }
    }
}
