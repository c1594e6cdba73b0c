//! A look at the cost, by hand: `cargo test --release speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use super::super::{ImageReference, PatternSet};
use super::{pattern, reference};

#[test]
#[ignore = "a measurement, not a promise: the machine decides"]
fn speed_of_a_hundred_sets_of_fifty_patterns() {
    let sets: Vec<PatternSet> = (0..100)
        .map(|set| {
            let of_set = (0..50).map(move |i| match i % 5 {
                0 => format!("registry.local/team-{set}/svc-{i}/**"),
                1 => format!("registry.local/team-{set}-{i}/*"),
                2 => format!("registry.local/**/worker-{set}-{i}"),
                3 => format!("optio-{set}-{i}"),
                _ => format!("ghcr.io/org-{set}/app-{i}:v*"),
            });
            PatternSet::new(of_set.map(|text| pattern(&text)))
        })
        .collect();
    for image in ["registry.local/team-x/agents/worker:1.2.3", "nginx", "registry.local/team-99/svc-45/x"] {
        let image = reference(image);
        const ROUNDS: u32 = 2_000;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(sets.iter().filter(|set| set.first_match(black_box(&image)).is_some()).count());
        }
        println!("{image}: {:?} for 100 sets of 50", start.elapsed() / ROUNDS);
    }
    const PARSED: u32 = 200_000;
    let start = Instant::now();
    for _ in 0..PARSED {
        let _ = black_box(ImageReference::parse(black_box("registry.local:5000/team-x/agents/worker:1.2.3")));
    }
    println!("{:?} to parse one reference", start.elapsed() / PARSED);
}
