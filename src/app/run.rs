//! `pullguard run`: the webhook, the controller, and what they share, until told to stop.
//!
//! Enters: the arguments of the command line. Leaves: a running replica. Any task that ends takes the process down: a
//! replica that does half of its work is worse than one that is started anew.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
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
use crate::shell::registration::{CertificateSource, Registered, Registration};
use crate::shell::telling::Teller;
use crate::shell::tls::Serving;
use crate::shell::webhook::{self, NamespaceLookup, Webhook};
use crate::shell::world::World;
use crate::shell::{controller, door, lease, watches};

type Shared = Arc<World<Recreation>>;

/// Whoever sends reviews hears late that this replica ends: for so long they are still taken.
const LINGER: Duration = Duration::from_secs(5);
/// Connections are drained for so long after that; the API server's own time-out is shorter.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed round the certificates are looked at again soon, and while there is no webhook to keep.
const RETRY: Duration = Duration::from_secs(2);
/// A round is some calls and a wait of ten seconds: one that takes longer hangs.
const ROUND: Duration = Duration::from_secs(60);
/// An API server that says nothing for so long is not there: a watch hears from it each minute, and ends after five.
const SILENCE: Duration = Duration::from_secs(300);
const LEASE: &str = "pullguard";

/// # Errors
/// What stopped the replica, other than being told to.
pub async fn run(args: RunArgs) -> Result<()> {
    let mut signal = pin!(signalled());
    let world: Shared = Arc::new(World::new(args.inventory.settings()));
    let metrics = Arc::new(Metrics::default());
    metrics.prime();
    let serving = Arc::new(Serving::default());
    let webhook_on = args.role.contains(&Role::Webhook);
    let mut tasks: JoinSet<Result<&'static str>> = JoinSet::new();
    // Whoever waits for the API server is alive.
    let vitals = Pulse {
        world: Arc::clone(&world),
        serving: webhook_on.then(|| Arc::clone(&serving)),
        metrics: Arc::clone(&metrics),
    };
    let probes = bind(args.probes_address).with_context(|| format!("probes on {}", args.probes_address))?;
    tasks.spawn(async {
        door::serve_plain(probes, probes::router(Arc::new(vitals))).await.context("probes")?;
        Ok("server of probes")
    });
    let client = tokio::select! {
        client = connect() => client?,
        signal = &mut signal => {
            tracing::info!(signal, "stopping before the API server was reached");
            return Ok(());
        }
    };

    let (events, writer) = events::channel(Arc::clone(&metrics));
    let (stop, stopping) = watch::channel(false);
    tasks.spawn(ended("watch of nodes", watches::nodes(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks
        .spawn(ended("watch of policies", watches::policies(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks.spawn(ended(
        "watch of namespaces",
        watches::namespaces(client.clone(), Arc::clone(&world), Arc::clone(&metrics)),
    ));
    tasks.spawn(ended("watch of records", watches::records(client.clone(), Arc::clone(&world), Arc::clone(&metrics))));
    tasks.spawn(ended("writer of Events", writer.run(client.clone(), args.pod_name.clone())));

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
        let listener = bind(address).with_context(|| format!("webhook on {address}"))?;
        let served = door::serve(listener, serving, webhook::router(Arc::new(state)), drain.clone());
        tasks.spawn(async move {
            served.await.with_context(|| format!("webhook on {address}"))?;
            Ok(WEBHOOK)
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
        tasks.spawn(ended(ELECTION, election.run(leading, stopping.clone())));
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

    let (result, linger) = tokio::select! {
        signal = &mut signal => {
            tracing::info!(signal, "stopping");
            // A person who presses Ctrl-C sends no reviews.
            (Ok(()), if signal == SIGTERM { LINGER } else { Duration::ZERO })
        }
        ended = tasks.join_next() => {
            let result = match ended {
                Some(Ok(Ok(what))) => Err(anyhow::anyhow!("the {what} has ended, which it never should")),
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => Err(anyhow::anyhow!("a task has panicked: {panic}")),
                None => Ok(()),
            };
            (result, Duration::ZERO)
        }
    };
    // The lease is given up, and whoever asks meanwhile is answered, before the sockets close. The other tasks never end.
    stop.send_replace(true);
    let mut last = args.role.clone();
    let finish = async {
        if webhook_on {
            tokio::time::sleep(linger).await;
            drain.graceful_shutdown(Some(DRAIN));
        }
        while !last.is_empty()
            && let Some(task) = tasks.join_next().await
        {
            match task {
                Ok(Ok(WEBHOOK)) => last.retain(|role| *role != Role::Webhook),
                Ok(Ok(ELECTION)) => last.retain(|role| *role != Role::Controller),
                Ok(_) | Err(_) => {}
            }
        }
    };
    if tokio::time::timeout(linger + DRAIN, finish).await.is_err() {
        tracing::debug!("some tasks had to be cut off");
    }
    tasks.shutdown().await;
    result
}

/// The tasks that end when they are told to.
const WEBHOOK: &str = "webhook server";
const ELECTION: &str = "election";

/// Listens; on all addresses of both families, or of IPv4 where the kernel has no IPv6.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    }
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
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
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
        let wait = match tokio::time::timeout(ROUND, registration.round(wanted)).await {
            Ok(Ok(Registered::Yes)) => CHECK,
            Ok(Ok(Registered::NotYet)) => RETRY,
            Ok(Err(error)) => {
                tracing::warn!(%error, "certificates and webhook configurations cannot be kept");
                RETRY
            }
            Err(_) => {
                tracing::warn!(
                    "certificates and webhook configurations cannot be kept: the API server does not answer"
                );
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

const SIGTERM: &str = "SIGTERM";

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
        () = wait(SignalKind::terminate()) => SIGTERM,
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
