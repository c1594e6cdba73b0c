//! `pullguard run`: the webhook, the controller, and what they share, until told to stop.
//!
//! Enters: the arguments of the command line. Leaves: a running replica. Any task that ends takes the process down: a
//! replica that does half of its work is worse than one that is started anew.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::HeaderValue;
use axum::http::header::USER_AGENT;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cli::{Certificate, Role, RunArgs};
use super::cluster::choose_proxy;
use crate::core::runtime::recreation::Recreation;
use crate::core::selector::Labels;
use crate::shell::certificates::CHECK;
use crate::shell::events;
use crate::shell::metrics::Metrics;
use crate::shell::probes::{self, Vitals};
use crate::shell::registration::{CertificateSource, Registration};
use crate::shell::telling::Teller;
use crate::shell::tls::Serving;
use crate::shell::webhook::{self, NamespaceLookup, Webhook};
use crate::shell::world::World;
use crate::shell::{controller, door, lease, watches};

type Shared = Arc<World<Recreation>>;

/// Connections are drained for so long; the API server's own time-out is shorter.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed round the certificates are looked at again soon.
const RETRY: Duration = Duration::from_secs(2);
const LEASE: &str = "pullguard";

/// # Errors
/// What stopped the replica, other than being told to.
pub async fn run(args: RunArgs) -> Result<()> {
    let client = connect().await?;
    let world: Shared = Arc::new(World::new(args.inventory.settings()));
    let metrics = Arc::new(Metrics::default());
    metrics.prime();
    let (events, writer) = events::channel(Arc::clone(&metrics));
    let serving = Arc::new(Serving::default());
    let webhook_on = args.role.contains(&Role::Webhook);
    let (stop, stopping) = watch::channel(false);

    let mut tasks: JoinSet<Result<&'static str>> = JoinSet::new();
    tasks.spawn(ended("watch of nodes", watches::nodes(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks
        .spawn(ended("watch of policies", watches::policies(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks.spawn(ended(
        "watch of namespaces",
        watches::namespaces(client.clone(), Arc::clone(&world), Arc::clone(&metrics)),
    ));
    tasks.spawn(ended("watch of records", watches::records(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks.spawn(ended("writer of Events", writer.run(client.clone(), args.pod_name.clone())));

    let vitals = Pulse {
        world: Arc::clone(&world),
        serving: webhook_on.then(|| Arc::clone(&serving)),
        metrics: Arc::clone(&metrics),
    };
    tasks.spawn(serve_probes(args.probes_address, Arc::new(vitals)));

    let drain = axum_server::Handle::new();
    if webhook_on {
        let registration = Registration {
            client: client.clone(),
            namespace: args.namespace.clone(),
            source: match args.certificate {
                Certificate::Managed => CertificateSource::Managed,
                Certificate::External => CertificateSource::External,
            },
            serving: Arc::clone(&serving),
        };
        tasks.spawn(ended("keeper of certificates", register(registration, Arc::clone(&world))));
        let state = Webhook {
            world: Arc::clone(&world),
            own_namespace: args.namespace.clone(),
            lookup: Box::new(Lookup(Api::all(client.clone()))),
            sink: Box::new(Teller { world: Arc::clone(&world), events: events.clone(), metrics: Arc::clone(&metrics) }),
        };
        let address = args.webhook_address;
        let listener = std::net::TcpListener::bind(address).with_context(|| format!("webhook on {address}"))?;
        let served = door::serve(listener, serving, webhook::router(Arc::new(state)), drain.clone());
        tasks.spawn(async move {
            served.await.with_context(|| format!("webhook on {address}"))?;
            Ok("webhook server")
        });
    }
    if args.role.contains(&Role::Controller) {
        let (leading, is_leading) = watch::channel(false);
        let election = lease::Election {
            client: client.clone(),
            namespace: args.namespace.clone(),
            name: LEASE.to_owned(),
            identity: args.pod_name.clone(),
        };
        tasks.spawn(ended("election", election.run(leading, stopping.clone())));
        let controller = controller::Controller {
            client: client.clone(),
            world: Arc::clone(&world),
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            settings: controller_settings(&args),
        };
        tasks.spawn(ended("controller", controller.run(is_leading, stopping.clone())));
    }
    drop(events);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), roles = ?args.role, "started");

    let result = tokio::select! {
        signal = signalled() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(what))) => Err(anyhow::anyhow!("the {what} has ended, which it never should")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(anyhow::anyhow!("a task has panicked: {panic}")),
            None => Ok(()),
        },
    };
    // Whoever is being answered gets the answer, and the lease is given up, before the sockets close.
    stop.send_replace(true);
    drain.graceful_shutdown(Some(DRAIN));
    let finish = async { while tasks.join_next().await.is_some_and(|task| !is_last(&task)) {} };
    if tokio::time::timeout(DRAIN, finish).await.is_err() {
        tracing::debug!("some tasks had to be cut off");
    }
    tasks.shutdown().await;
    result
}

/// The webhook's server is the last that may take its time; the watches never end by themselves.
fn is_last(task: &Result<Result<&'static str>, tokio::task::JoinError>) -> bool {
    matches!(task, Ok(Ok("webhook server")))
}

async fn ended(what: &'static str, task: impl Future<Output = ()> + Send) -> Result<&'static str> {
    task.await;
    Ok(what)
}

/// An API server that is not there yet is waited for: at a cluster's start everything comes up at once.
async fn connect() -> Result<Client> {
    let mut config =
        kube::Config::infer().await.context("no kubeconfig and no service account: where is the API server?")?;
    choose_proxy(&mut config);
    // An effect is fenced to what was read: whoever tries again must read again, and that is the plan's to say.
    config.default_retry = false;
    // Who asks is seen in the API server's audit log, and in its metrics of priority and fairness.
    let agent = concat!("pullguard/", env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
    let client = Client::try_from(config).context("the configuration of the API server cannot be used")?;
    let mut wait = Duration::from_millis(500);
    loop {
        match client.apiserver_version().await {
            Ok(_) => return Ok(client),
            Err(error) => tracing::warn!(%error, retry_in = ?wait, "API server not reached"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(15));
    }
}

fn controller_settings(args: &RunArgs) -> crate::core::runtime::ledger::Settings {
    let mut settings = crate::core::runtime::ledger::Settings::default();
    settings.own_namespace.clone_from(&args.namespace);
    settings.brakes.images = args.brake_images.into();
    settings.brakes.nodes = args.brake_nodes.into();
    settings.caps.acts.per_plan = args.max_effects_per_cycle;
    settings.caps.acts.per_namespace_minute = args.max_effects_per_namespace;
    settings.caps.acts.per_minute = args.max_effects_per_cluster;
    settings
}

async fn register(registration: Registration, world: Shared) {
    let mut changes = world.changes();
    loop {
        let wanted = world.rescue_wanted();
        let wait = match registration.round(wanted).await {
            Ok(()) => CHECK,
            Err(error) => {
                tracing::warn!(%error, "certificates and webhook configurations cannot be kept");
                RETRY
            }
        };
        // The first list of policies, or one that begins to ask for a rescue, is not made to wait for the next round.
        let rescue_changes = async {
            while changes.changed().await.is_ok() {
                if world.rescue_wanted() != wanted {
                    return;
                }
            }
            std::future::pending().await
        };
        if tokio::time::timeout(wait, rescue_changes).await.is_ok() {
            tracing::debug!("policies ask for something else");
        }
    }
}

async fn serve_probes(address: SocketAddr, vitals: Arc<dyn Vitals>) -> Result<&'static str> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("probes on {address}"))?;
    axum::serve(listener, probes::router(vitals)).await.context("probes")?;
    bail!("the server of probes has ended")
}

async fn signalled() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends the process by itself.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => "SIGTERM",
        () = wait(SignalKind::interrupt()) => "SIGINT",
    }
}

struct Pulse {
    world: Shared,
    /// `None`: this replica answers no reviews.
    serving: Option<Arc<Serving>>,
    metrics: Arc<Metrics>,
}

impl Vitals for Pulse {
    fn not_ready(&self) -> Option<String> {
        if self.serving.as_ref().is_some_and(|serving| !serving.is_set()) {
            return Some("no certificate yet\n".to_owned());
        }
        (!self.world.is_ready()).then(|| "nodes, policies, namespaces or records have not been read yet\n".to_owned())
    }

    fn metrics(&self) -> String {
        self.world.read_inventory(|inventory| self.metrics.set_inventory(inventory.len(), inventory.known_names()));
        self.metrics.set_certificate(self.serving.as_ref().and_then(|serving| serving.until()));
        let broken = self.world.reports().values().filter(|report| report.problem.is_some()).count();
        self.metrics.set_policies(self.world.policies().len(), broken);
        self.metrics.encode()
    }
}

struct Lookup(Api<Namespace>);

impl NamespaceLookup for Lookup {
    fn labels<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Labels>> {
        Box::pin(async move { Some(self.0.get(name).await.ok()?.metadata.labels.unwrap_or_default()) })
    }
}
