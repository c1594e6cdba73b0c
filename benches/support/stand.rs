//! The webhook as it stands in the product, without a cluster behind it.
//!
//! Enters: policies, and an inventory. Leaves: its router, with the real teller of Events, metrics and log lines; what they
//! write goes nowhere: the API server is a function that says yes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use kube::Client;
use kube::client::Body;
use pullguard::core::inventory::{Inventory, InventorySettings};
use pullguard::core::policies::Policies;
use pullguard::core::runtime::recreation::Recreation;
use pullguard::core::selector::Labels;
use pullguard::shell::events;
use pullguard::shell::metrics::Metrics;
use pullguard::shell::telling::Teller;
use pullguard::shell::webhook::{NamespaceLookup, Webhook, router};
use pullguard::shell::world::World;

use super::cluster::namespace_labels;

/// Namespaces that the watch has brought, beside the one that the reviews are from.
const NAMESPACES: usize = 500;

pub struct Stand {
    pub world: Arc<World<Recreation>>,
    pub router: Router,
}

/// An API server that creates every Event.
fn client() -> Client {
    let created = br#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e","namespace":"apps"}}"#;
    let service = tower::service_fn(move |_: Request<Body>| async move {
        Ok::<_, Infallible>(Response::builder().status(201).body(Body::from(created.to_vec())).expect("a response"))
    });
    Client::new(service, "default")
}

struct NoSuchNamespace;

impl NamespaceLookup for NoSuchNamespace {
    fn labels<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Labels>> {
        Box::pin(async { None })
    }
}

/// Within a runtime: the writer of Events runs on it.
pub fn stand(inventory: Inventory, policies: &Policies) -> Stand {
    let world: Arc<World<Recreation>> = Arc::new(World::new(InventorySettings::default()));
    world.change_inventory(|there| *there = inventory);
    world.change_policies(|there| there.clone_from(policies));
    world.set_policies_synced();
    let others = (0..NAMESPACES).map(|index| (format!("namespace-{index}"), namespace_labels()));
    let namespaces: BTreeMap<String, Labels> = others.chain([("apps".to_owned(), namespace_labels())]).collect();
    world.replace_namespaces(namespaces);
    let metrics = Arc::new(Metrics::default());
    metrics.prime();
    let (events, writer) = events::channel(Arc::clone(&metrics));
    tokio::spawn(writer.run(client(), "replica".to_owned()));
    let webhook = Webhook {
        world: Arc::clone(&world),
        own_namespace: "pullguard".to_owned(),
        lookup: Box::new(NoSuchNamespace),
        sink: Box::new(Teller { world: Arc::clone(&world), events, metrics }),
    };
    Stand { world, router: router(Arc::new(webhook)) }
}

/// Log lines are made, as in the product, and thrown away.
pub fn log_to_nowhere() {
    tracing_subscriber::fmt()
        .with_writer(std::io::sink)
        .with_max_level(tracing::Level::INFO)
        .json()
        .flatten_event(true)
        .init();
}
