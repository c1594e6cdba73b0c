//! What the worst bodies cost. The Deployment has 128 MiB for all; an idle replica takes some 20 of them, a large
//! inventory 64 at most.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use pullguard::core::refusal::NoRefusals;
use pullguard::shell::webhook::Webhook;
use serde_json::json;

use super::fuzz::ground;
use super::stage::{Stage, pod, post, review, review_of_size};

const MIB: u64 = 1 << 20;
/// Bodies, their decoding on two threads, and what the clients of this very process take.
const ALLOWED: u64 = 64 * MIB;

/// From `/proc/self/status`, in bytes.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

/// In a process of its own, where no other test has left memory behind that would be used again.
fn alone(name: &str, measure: impl FnOnce()) {
    const ALONE: &str = "PULLGUARD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return measure();
    }
    let program = std::env::current_exe().expect("this program");
    let run = Command::new(program)
        .args(["--exact", &format!("memory::{name}"), "--nocapture", "--test-threads", "1"])
        .env(ALONE, "1")
        .output()
        .expect("a process");
    let (said, told) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    said.lines().filter(|line| line.contains(" MiB ")).for_each(|line| println!("{line}"));
    assert!(run.status.success() && said.contains("1 passed"), "{said}\n{told}");
}

/// How much more memory this needs at its peak than before.
fn growth(webhook: Arc<Webhook<NoRefusals>>, work: impl FnOnce(&Stage)) -> u64 {
    let stage = Stage::open(webhook);
    stage.serves_the_next();
    let before = memory("VmRSS");
    // Forgets the peak so far.
    fs::write("/proc/self/clear_refs", "5").expect("a Linux");
    work(&stage);
    let grown = memory("VmHWM").saturating_sub(before);
    stage.serves_the_next();
    grown
}

#[cfg(target_os = "linux")]
#[test]
fn forty_bodies_of_seven_mebibytes_at_a_time_share_one_budget() {
    alone("forty_bodies_of_seven_mebibytes_at_a_time_share_one_budget", || {
        let bytes = post("/validate?timeout=30s", &review_of_size(7 << 20));
        let grown = growth(ground::webhook(), |stage| {
            std::thread::scope(|scope| {
                let send = || stage.send(&bytes).map_or(0, |answer| answer.status);
                let sent: Vec<_> = (0..40).map(|_| scope.spawn(send)).collect();
                let statuses: Vec<u16> = sent.into_iter().map(|sent| sent.join().expect("no panic")).collect();
                // Who had to wait too long is told so, or finds the connection closed while it writes.
                assert!(statuses.iter().all(|status| [0, 200, 408, 503].contains(status)), "{statuses:?}");
                assert!(statuses.contains(&200), "{statuses:?}");
            });
        });
        println!("40 bodies of 7 MiB at a time: {} MiB at the peak", grown / MIB);
        assert!(grown < ALLOWED, "{} MiB", grown / MIB);
    });
}

/// 7 MiB of one entry, over and over, at a place of a pod.
fn many(entry: &str, at: &str) -> String {
    let list = format!("[{entry}{}]", format!(",{entry}").repeat((6 << 20) / (entry.len() + 1)));
    let mut object = pod("absent:1", "Never");
    *object.pointer_mut(at.rsplit_once('/').expect("a path").0).expect("a parent") =
        json!({"containers": object["spec"]["containers"], at.rsplit_once('/').expect("a path").1: "MANY"});
    review(&object).to_string().replace("\"MANY\"", &list)
}

#[cfg(target_os = "linux")]
#[test]
fn no_body_becomes_many_times_itself() {
    alone("no_body_becomes_many_times_itself", || {
        for (entry, at) in [
            ("{}", "/spec/volumes"),
            ("{}", "/spec/initContainers"),
            ("{}", "/spec/tolerations"),
            ("{\"\":0}", "/spec/unknown"),
            ("[]", "/spec/unknown"),
            ("0", "/spec/unknown"),
        ] {
            let body = many(entry, at);
            for (path, webhook) in [("/validate", ground::webhook()), ("/mutate", ground::rescuing("PullIfNotPresent"))]
            {
                let bytes = post(path, &body);
                let grown = growth(webhook, |stage| {
                    std::thread::scope(|scope| {
                        // On a slow machine some have to wait too long for room; what they would cost is what counts.
                        let send = || stage.send(&bytes).map_or(0, |answer| answer.status);
                        let sent: Vec<_> = (0..3).map(|_| scope.spawn(send)).collect();
                        let statuses: Vec<u16> = sent.into_iter().map(|sent| sent.join().expect("no panic")).collect();
                        assert!(statuses.contains(&200), "{statuses:?}");
                    });
                });
                println!("{entry} at {at}, {path}: {} MiB at the peak", grown / MIB);
                assert!(grown < ALLOWED, "{entry} at {at}, {path}: {} MiB", grown / MIB);
            }
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_house_costs_what_was_reckoned() {
    alone("a_full_house_costs_what_was_reckoned", || {
        let small = review_of_size(30 << 10);
        let bytes = post("/validate?timeout=30s", &small);
        let grown = growth(ground::webhook(), |stage| {
            // All but one byte of a small body on each seat.
            let clients: Vec<_> = (0..250)
                .map(|_| {
                    use std::io::Write as _;
                    let mut client = stage.connect().expect("connected");
                    client.write_all(&bytes[..bytes.len() - 1]).and_then(|()| client.flush()).expect("sent");
                    client
                })
                .collect();
            stage.serves_the_next();
            drop(clients);
        });
        println!("250 connections with 30 KiB of a body each, both ends: {} MiB at the peak", grown / MIB);
        assert!(grown < ALLOWED, "{} MiB", grown / MIB);
    });
}
