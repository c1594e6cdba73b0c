//! That memory does not grow with the number of reviews.
//!
//! `cargo bench --bench growth` runs 1,000,000 reviews through the router, `GROWTH_REVIEWS=10000000` as many as are asked
//! for; `cargo test` a short run. Every review is of a pod that was never seen before, allowed and denied, good and broken,
//! to either half, from namespaces known and unknown; meanwhile nodes change their images, kubelets speak, records come
//! and go, policies are edited. Halfway all caches are full, so what is live at the end may not be more than then.
//!
//! Two bounds. Live bytes, as the allocator counts them: the caches that there are (Events told of late, recent additions
//! to nodes' lists, kubelets' words) drop their oldest half when full, and so breathe by some hundred KiB. Resident
//! memory, as the kernel counts it: beside that, what the allocator keeps for itself and cannot give back.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a measurement may stop where it stands"
)]

mod support;

use std::alloc::System;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use pullguard::core::image::ImageReference;
use pullguard::core::inventory::Access;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tower::ServiceExt as _;

use support::Lots;
use support::cluster::{self, NAMES, NODES, Which, Whom, common, missing, node, policies, policy, rare};
use support::figures::Figures;
use support::machine::{load, mib, resident_kib};
use support::objects::{Size, deployment, pod, review};
use support::stand::{Stand, log_to_nowhere, stand};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A leak of one smallest allocation a review would be 16 bytes times half of them: in the short run 1.6 MB.
const SHORT: usize = 200_000;
const LONG: usize = 1_000_000;
const LIVE_BOUND: usize = 1 << 20;
const RESIDENT_BOUND_KIB: u64 = 8 << 10;
const SAMPLES: usize = 10;
/// So much time passes between two reviews, as far as nodes and kubelets are concerned: their caches hold ten minutes.
const BETWEEN: Duration = Duration::from_millis(20);
const CHANGE_EVERY: usize = 25;
/// Nodes that change, again and again: so that halfway each has done so often, and what its sets need at most is there.
const CHANGING: usize = 200;

/// Texts from which reviews are made: replacing a few words is cheap, and the same for all reviews.
struct Moulds {
    pod: String,
    deployment: String,
}

impl Moulds {
    fn new() -> Self {
        let containers = [("main", "MAIN-IMAGE"), ("side", "SIDE-IMAGE")];
        Self {
            pod: review(0, &pod(0, &containers, "Never", Size::SMALL), None),
            deployment: review(0, &deployment(0, &containers, "Never", Size::SMALL), None),
        }
    }

    fn fill(mould: &str, number: usize, main: &str, side: &str) -> String {
        // `00000000-` begins every uid, `job-0` and `task-0` every name.
        mould
            .replace("00000000-", &format!("{number:08x}-"))
            .replace("job-0", &format!("job-{number}"))
            .replace("task-0", &format!("task-{number}"))
            .replace("MAIN-IMAGE", main)
            .replace("SIDE-IMAGE", side)
    }

    fn review(&self, number: usize, lots: &mut Lots) -> (&'static str, String) {
        let side = common(lots);
        match number % 8 {
            0..=2 => ("/validate", Self::fill(&self.pod, number, &common(lots), &side)),
            3 => ("/validate", Self::fill(&self.pod, number, &missing(lots), &side)),
            4 => ("/validate", Self::fill(&self.deployment, number, &rare(lots), &side)),
            5 => ("/mutate", Self::fill(&self.pod, number, &rare(lots), &side)),
            6 => {
                // From a namespace that nobody has heard of.
                let text = Self::fill(&self.pod, number, &common(lots), "no image at all");
                let name = format!("\"namespace\":\"other-{number}\"");
                ("/validate", text.replace("\"namespace\":\"apps\"", &name))
            }
            _ => {
                let mut text = Self::fill(&self.pod, number, &common(lots), &side);
                text.truncate(lots.next(text.len()));
                ("/validate", text)
            }
        }
    }
}

/// The world goes on meanwhile.
fn change(stand: &Stand, number: usize, lots: &mut Lots) {
    let now = Timestamp::now() + BETWEEN * u32::try_from(number).unwrap_or(u32::MAX);
    let index = lots.next(CHANGING) * (NODES / CHANGING);
    let facts = node(index, NAMES - 1, &mut Lots(number as u64));
    stand.world.change_inventory(|inventory| {
        if lots.one_in(10) {
            inventory.remove(&facts.name);
        }
        inventory.apply(facts, now);
        let image = ImageReference::parse(&missing(lots)).expect("a reference");
        let secrets = [format!("secret-{}", number % 100)];
        inventory.kubelet_denies(&format!("node-{}", lots.next(NODES)), &image, Access::new("apps", &secrets), now);
    });
    if number.is_multiple_of(CHANGE_EVERY * 40) {
        let edited = policy(lots.next(100), 100, Whom::Teams, Which::Pools);
        stand.world.change_policies(|policies| policies.apply(edited));
    }
    stand.world.changed();
}

fn live() -> usize {
    let stats = COUNTED.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    reviews: usize,
    live: usize,
    resident_kib: u64,
}

/// Waits until nothing is under way: Events of the last reviews may still be in the queue.
async fn sample(reviews: usize) -> Sample {
    let mut before = live();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = live();
        if now.abs_diff(before) < 4096 {
            break;
        }
        before = now;
    }
    Sample { reviews, live: live(), resident_kib: resident_kib("self") }
}

/// Runs so many reviews, and samples memory.
async fn run(reviews: usize) -> Vec<Sample> {
    let stand = stand(cluster::inventory(NAMES - 1), &policies(100, Whom::Teams, Which::Pools));
    let (moulds, mut lots) = (Moulds::new(), Lots(17));
    let (mut samples, mut answered) = (Vec::new(), 0_usize);
    for number in 0..reviews {
        if number > 0 && number.is_multiple_of(reviews.div_ceil(SAMPLES)) {
            samples.push(sample(number).await);
        }
        // In the first half only: what changes of nodes leave behind (`Recent`, `Lost`) has bounds of its own, of megabytes, and
        // fills them for hours at the pace of a real cluster.
        if number.is_multiple_of(CHANGE_EVERY) && number < reviews / 2 {
            change(&stand, number, &mut lots);
        }
        let (path, body) = moulds.review(number, &mut lots);
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body));
        let response = stand.router.clone().oneshot(request.expect("a request")).await.expect("infallible");
        answered += usize::from(response.status() == StatusCode::OK);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("an answer");
        assert!(!body.is_empty());
    }
    // Of the broken ones those that are cut off before their uid are answered with an error.
    assert!(answered > reviews * 7 / 8, "{answered} of {reviews} answered");
    samples.push(sample(reviews).await);
    samples
}

/// By how much the second half has grown.
fn growth(samples: &[Sample]) -> (usize, u64) {
    let (middle, last) = (samples[samples.len() / 2 - 1], samples[samples.len() - 1]);
    (last.live.saturating_sub(middle.live), last.resident_kib.saturating_sub(middle.resident_kib))
}

fn with_runtime(reviews: usize) -> Vec<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(run(reviews))
}

fn short() -> Result<(), Failed> {
    let samples = with_runtime(SHORT);
    let (live, resident) = growth(&samples);
    if live < LIVE_BOUND && resident < RESIDENT_BOUND_KIB {
        Ok(())
    } else {
        Err(format!("grown by {live} live bytes and {resident} KiB resident: {samples:#?}").into())
    }
}

fn main() -> ExitCode {
    log_to_nowhere();
    if !std::env::args().any(|argument| argument == "--bench") {
        let arguments = Arguments::from_args();
        return libtest_mimic::run(&arguments, vec![Trial::test("reviews_leave_no_memory_behind", short)]).exit_code();
    }
    let reviews = std::env::var("GROWTH_REVIEWS").ok().and_then(|reviews| reviews.parse().ok()).unwrap_or(LONG);
    let start = Instant::now();
    let samples = with_runtime(reviews);
    for Sample { reviews, live, resident_kib } in &samples {
        println!(
            "  after {reviews:>9} reviews: {:>8.2} MiB live, {:>8.2} MiB resident",
            *live as f64 / 1048576.0,
            mib(*resident_kib)
        );
    }
    let (live, resident) = growth(&samples);
    let mut figures = Figures::default();
    let what = format!("second half of {reviews} reviews");
    figures.target(format!("{what}: live bytes grown by"), live.to_string(), "< 1 MiB", live < LIVE_BOUND);
    let met = resident < RESIDENT_BOUND_KIB;
    figures.target(format!("{what}: resident memory grown by"), format!("{resident} KiB"), "< 8 MiB", met);
    figures.note("time of all reviews", format!("{:.0?}", start.elapsed()));
    figures.finish(&format!("growth ({})", load()))
}
