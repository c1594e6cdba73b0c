//! Which replica leads.
//!
//! Enters: a `Lease` in our own namespace. Leaves: a bool that others hold. It is an optimisation and nothing more: every
//! effect has its own fence, and two leaders change nothing twice.
//!
//! client-go's algorithm: a lease is over when its holder has written nothing for its duration **by our own monotonic
//! clock**. `kube-lease-manager` compares wall clocks: after one jumps back an hour, its holder renews an hour later and
//! nobody else may; a deleted Lease ends its election for good; and its bool stays true in a partition.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

/// After so long without a word another replica takes over.
const DURATION: Duration = Duration::from_secs(15);
/// After so long without a renewal the leader steps down by itself: well before anybody else can take over.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(4);

/// The election, to be run.
#[derive(Clone)]
pub struct Election {
    pub client: Client,
    pub namespace: String,
    pub name: String,
    /// Unique among replicas: the pod's name.
    pub identity: String,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What is known of the lease: who wrote it last, and when that was seen.
#[derive(Debug, Default)]
struct Observed {
    word: Option<(String, Option<MicroTime>)>,
    at: Option<Instant>,
}

impl Observed {
    /// Whether somebody else holds the lease.
    fn is_held_by_another(&mut self, spec: &LeaseSpec, identity: &str, now: Instant) -> bool {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let word = (holder, spec.renew_time.clone());
        if self.word.as_ref() != Some(&word) {
            self.word = Some(word);
            self.at = Some(now);
        }
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let is_fresh = self.at.is_some_and(|at| now.duration_since(at) < duration);
        !holder.is_empty() && holder != identity && is_fresh
    }
}

impl Election {
    /// Stands for election until `shutdown` is true; then gives the lease up, so that another need not wait for its end.
    pub async fn run(self, leading: watch::Sender<bool>, mut shutdown: watch::Receiver<bool>) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut observed = Observed::default();
        let mut renewed: Option<Instant> = None;
        let mut said = false;
        loop {
            let began = Instant::now();
            let limit = match renewed {
                // A renewal that is late must not keep us leading beyond the deadline.
                Some(at) => (at + DEADLINE).saturating_duration_since(began).min(TIMEOUT),
                None => TIMEOUT,
            };
            match tokio::time::timeout(limit, self.try_hold(&api, &mut observed)).await {
                Ok(Ok(Try::Held)) => {
                    renewed = Some(began);
                    said = false;
                }
                // Whatever we thought, we do not hold it.
                Ok(Ok(Try::Another)) => {
                    renewed = None;
                    said = false;
                }
                // Read again at the next try: until the deadline nobody else can hold it.
                Ok(Ok(Try::Raced)) => {}
                Ok(Err(error)) => say(&mut said, &error.to_string()),
                Err(_) => say(&mut said, "no answer in time"),
            }
            if renewed.is_some_and(|at| at.elapsed() >= DEADLINE) {
                renewed = None;
            }
            let leads = renewed.is_some();
            leading.send_if_modified(|leading| {
                let changed = *leading != leads;
                *leading = leads;
                if changed {
                    tracing::info!(leads, identity = self.identity, "leadership changed");
                }
                changed
            });
            let next = tokio::time::sleep_until(began + RETRY);
            tokio::select! {
                () = next => {}
                _ = shutdown.wait_for(|stop| *stop) => break,
            }
        }
        if leading.send_replace(false) {
            let released = tokio::time::timeout(TIMEOUT, self.release(&api)).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!("lease not given up, it ends by itself");
            }
        }
    }

    /// One try; every write carries the resourceVersion of the read before it.
    async fn try_hold(&self, api: &Api<Lease>, observed: &mut Observed) -> Result<Try, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(&LeaseSpec::default(), now)),
            };
            return won(api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if observed.is_held_by_another(&spec, &self.identity, Instant::now()) {
            return Ok(Try::Another);
        }
        lease.spec = Some(self.spec(&spec, now));
        won(api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: &LeaseSpec, now: MicroTime) -> LeaseSpec {
        let is_ours = before.holder_identity.as_deref() == Some(self.identity.as_str());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!is_ours))),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self, api: &Api<Lease>) -> Result<(), kube::Error> {
        let mut lease = api.get(&self.name).await?;
        let Some(spec) = &mut lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        won(api.replace(&self.name, &PostParams::default(), &lease).await).map(|_| ())
    }
}

/// An error is said once, until a try succeeds.
fn say(said: &mut bool, error: &str) {
    if !std::mem::replace(said, true) {
        tracing::warn!(error, "lease cannot be read or renewed, trying again");
    }
}

/// How a try to hold the lease went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    Held,
    Another,
    /// Somebody wrote the lease between our read and our write.
    Raced,
}

fn won(written: Result<Lease, kube::Error>) -> Result<Try, kube::Error> {
    match written {
        Ok(_) => Ok(Try::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Try::Raced),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_ends_by_silence_whatever_its_times_say() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        let ancient = held("a", 1);
        assert!(observed.is_held_by_another(&ancient, "b", start), "its clock may be wrong");
        assert!(observed.is_held_by_another(&ancient, "b", start + Duration::from_secs(14)));
        assert!(!observed.is_held_by_another(&ancient, "b", start + Duration::from_secs(15)));
    }

    #[test]
    fn a_renewal_is_any_other_word() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        assert!(observed.is_held_by_another(&held("a", 100), "b", start));
        let later = start + Duration::from_secs(15);
        assert!(observed.is_held_by_another(&held("a", 50), "b", later), "also one that jumps back");
    }

    #[test]
    fn our_own_and_a_released_lease_are_free() {
        let (mut observed, now) = (Observed::default(), Instant::now());
        assert!(!observed.is_held_by_another(&held("b", 100), "b", now));
        assert!(!observed.is_held_by_another(&LeaseSpec::default(), "b", now));
    }
}
