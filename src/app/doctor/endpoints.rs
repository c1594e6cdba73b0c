//! Who stands behind the Service at this moment.
//!
//! Enters: EndpointSlices. Leaves: a line. What is declared is looked at in `workload`.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::line::{Line, Seen, Status};

const CHECK: &str = "endpoints";

pub(super) fn examine(slices: &Seen<Vec<EndpointSlice>>, closed: bool) -> Line {
    match slices {
        Err(gap) => gap.line(CHECK),
        Ok(slices) => judge(slices, closed),
    }
}

fn judge(slices: &[EndpointSlice], closed: bool) -> Line {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready: Vec<_> = endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true))
        .collect();
    let nodes: BTreeSet<&str> = ready.iter().filter_map(|endpoint| endpoint.node_name.as_deref()).collect();
    let log = "See the pods in Pullguard's namespace and their log, and whether the Service selects them.";
    match (ready.len(), closed) {
        (0, true) => Line::fail(
            CHECK,
            "no replica is ready behind the Service, and webhooks fail closed: nothing that they judge can be created",
            format!("{log} Until then apply manifests/ without the overlay fail-closed."),
        ),
        (0, false) => Line::fail(CHECK, "no replica is ready behind the Service: nothing is judged", log),
        (1, closed) => {
            let status = if closed { Status::Fail } else { Status::Warn };
            Line::new(CHECK, status, "one replica is ready behind the Service: nobody would stand in for it", log)
        }
        (ready, true) if nodes.len() == 1 => Line::warn(
            CHECK,
            format!("all {ready} replicas that are ready are on one node, and webhooks fail closed"),
            "Delete one of the pods when another node has room: its successor prefers it.",
        ),
        (ready, _) => Line::ok(CHECK, format!("{ready} replicas are ready behind the Service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slices(endpoints: &[(bool, &str)]) -> Vec<EndpointSlice> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(ready, node)| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "nodeName": node}))
            .collect();
        vec![serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints})).expect("a slice")]
    }

    #[test]
    fn replicas_are_counted_by_what_can_answer() {
        for (endpoints, closed, status) in [
            (slices(&[]), false, Status::Fail),
            (slices(&[(false, "a")]), true, Status::Fail),
            (slices(&[(true, "a"), (false, "b")]), false, Status::Warn),
            (slices(&[(true, "a"), (false, "b")]), true, Status::Fail),
            (slices(&[(true, "a"), (true, "b")]), true, Status::Ok),
            (slices(&[(true, "a"), (true, "a")]), true, Status::Warn),
            (slices(&[(true, "a"), (true, "a")]), false, Status::Ok),
        ] {
            assert_eq!(judge(&endpoints, closed).status, status, "{endpoints:?} {closed}");
        }
    }
}
