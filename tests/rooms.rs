//! Imports run one way: `main -> app -> shell -> k8s -> core`. A room may know itself and those behind it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 4] = ["core", "k8s", "shell", "app"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            // Tests of a room may look at a clock.
            if path.file_name().is_some_and(|name| name != "tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file that name something out of its reach.
fn trespasses(room: &str, text: &str) -> Vec<String> {
    let level = ROOMS.iter().position(|name| *name == room).expect("a room");
    let beyond: Vec<&str> = ROOMS[level + 1..].to_vec();
    let mut forbidden: Vec<String> = beyond.iter().map(|name| format!("crate::{name}")).collect();
    if room == "core" {
        // The pure room knows no client, no API type, no async, no clock and no log.
        forbidden.extend(
            [
                "kube::",
                "k8s_openapi::",
                "tokio::",
                "tracing::",
                "Timestamp::now",
                "SystemTime",
                "Instant::now",
                "std::fs",
                "std::env",
            ]
            .map(String::from),
        );
    }
    if room == "k8s" {
        forbidden.extend(
            ["kube::Client", "kube::Api", "tokio::", "Timestamp::now", "SystemTime", "Instant::now"].map(String::from),
        );
    }
    text.lines()
        .take_while(|line| line.trim() != "mod tests {" && line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter(|line| forbidden.iter().any(|word| line.contains(word.as_str())))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_room_knows_only_itself_and_the_rooms_behind_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for room in ROOMS {
        let mut files = Vec::new();
        sources(&src.join(room), &mut files);
        assert!(!files.is_empty(), "src/{room} is empty");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            for line in trespasses(room, &text) {
                wrong.push(format!("{}: {}", file.strip_prefix(&src).unwrap_or(&file).display(), line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the direction main -> app -> shell -> k8s -> core:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_trespass_would_be_seen() {
    assert_eq!(trespasses("core", "use crate::shell::webhook;").len(), 1);
    assert_eq!(trespasses("core", "use kube::Client;").len(), 1);
    assert_eq!(trespasses("k8s", "use crate::core::pod;").len(), 0);
    assert_eq!(trespasses("k8s", "use crate::app;").len(), 1);
}
