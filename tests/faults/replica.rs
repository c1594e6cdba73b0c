//! A replica of the runtime half, in this process: the same rooms as `pullguard run --role controller` without the election,
//! so that a test decides who leads, over which wire, by which clock, and when it dies.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::Config;
use pullguard::core::inventory::InventorySettings;
use pullguard::core::runtime::ledger::Settings;
use pullguard::core::runtime::recreation::Recreation;
use pullguard::shell::controller::Controller;
use pullguard::shell::metrics::Metrics;
use pullguard::shell::world::{Clock, World};
use pullguard::shell::{events, watches};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wire::Wire;

pub struct Replica {
    pub wire: Wire,
    pub world: Arc<World<Recreation>>,
    tasks: JoinSet<()>,
    /// Held so that it goes on to lead.
    _leading: watch::Sender<bool>,
    _stopping: watch::Sender<bool>,
}

impl Replica {
    pub fn start(config: Config, wire: Wire, clock: Clock) -> Result<Self> {
        let client = wire.client(config)?;
        // Every node of the tests is as young as the test.
        let settings = InventorySettings { young_node: Duration::ZERO, ..InventorySettings::default() };
        let world: Arc<World<Recreation>> = Arc::new(World::with_clock(settings, clock));
        let metrics = Arc::new(Metrics::default());
        let (events, writer) = events::channel(Arc::clone(&metrics));
        let (leading, leads) = watch::channel(true);
        let (stopping, stops) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(watches::nodes(client.clone(), Arc::clone(&world), Arc::clone(&metrics)));
        tasks.spawn(watches::policies(client.clone(), Arc::clone(&world), Arc::clone(&metrics)));
        tasks.spawn(watches::namespaces(client.clone(), Arc::clone(&world), Arc::clone(&metrics)));
        tasks.spawn(watches::records(client.clone(), Arc::clone(&world), Arc::clone(&metrics)));
        tasks.spawn(writer.run(client.clone(), "faults".to_owned()));
        let settings = Settings { own_namespace: "pullguard".to_owned(), ..Settings::default() };
        let controller = Controller { client, world: Arc::clone(&world), settings, events, metrics };
        tasks.spawn(controller.run(leads, stops));
        Ok(Self { wire, world, tasks, _leading: leading, _stopping: stopping })
    }

    /// As by SIGKILL: nothing is finished, nothing is given up.
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}
