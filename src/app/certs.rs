//! `pullguard certs`: the webhook's certificates, shown, rotated, or made.
//!
//! Enters: the Secret of an installation, or nothing. Leaves: what it holds; new contents, with the replicas following; or
//! a Secret and files for whoever brings his own. Nothing is made here that a replica would not make itself.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::Serialize;
use tokio::time::Instant;

use super::cli::{CertsAction, CertsArgs, InstalledArgs, Output};
use super::cluster::Cluster;
use super::output;
use super::replicas::{Replica, replicas};
use crate::shell::certificates::{Keyring, Particulars, Renewal, SECRET, Validity};
use crate::shell::registration::{CONFIGURATION, CertificateSource, Registration, contents, manifest};
use crate::shell::tls::Serving;

/// A replica looks at the Secret each minute, and gives the API servers 10 s to trust what it finds.
const FOLLOWED: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_secs(2);

/// # Errors
/// The Secret cannot be read or written, the replicas do not follow, or a file cannot be made.
pub async fn run(args: &CertsArgs) -> Result<ExitCode> {
    let installed = &args.installed;
    match &args.action {
        None => show(installed).await?,
        Some(CertsAction::Rotate) => rotate(installed).await?,
        Some(CertsAction::Make { out }) => {
            let made = Keyring::default().renewed(Renewal::Authority, &installed.namespace, Timestamp::now())?;
            match out {
                Some(folder) => files(&made, folder)?,
                None => output::text_out(&serde_saphyr::to_string(&manifest(&made, &installed.namespace))?)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What of the Secret is shown: a stable shape, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    namespace: &'a str,
    secret: &'static str,
    /// `managed`: Pullguard renews it by itself; `external`: somebody else does.
    source: &'static str,
    certificates: Vec<Shown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// `ca`, `previous-ca` or `serving`.
    role: &'static str,
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    sha256: String,
}

fn state<'a>(keyring: &Keyring, namespace: &'a str) -> State<'a> {
    let all = [("ca", &keyring.ca), ("previous-ca", &keyring.previous_ca), ("serving", &keyring.certificate)];
    let shown = |(role, pem): (&'static str, &String)| {
        let Particulars { subject, issuer, names, validity: Validity { from, until }, fingerprint } =
            Particulars::of(pem)?;
        Some(Shown { role, subject, issuer, names, not_before: from, not_after: until, sha256: fingerprint })
    };
    State {
        namespace,
        secret: SECRET,
        source: if keyring.is_ours() { "managed" } else { "external" },
        certificates: all.into_iter().filter_map(shown).collect(),
    }
}

fn table(state: &State<'_>, now: Timestamp) -> String {
    let mut table = output::Table::new(&["CERTIFICATE", "SUBJECT", "UNTIL", "DAYS LEFT"]);
    for shown in &state.certificates {
        let days = shown.not_after.duration_since(now).as_hours() / 24;
        table.row(&[shown.role, &shown.subject, &shown.not_after.to_string(), &days.to_string()]);
        if !shown.names.is_empty() {
            table.note(&format!("for {}", shown.names.join(", ")));
        }
        table.note(&format!("sha256 {}", shown.sha256));
    }
    table.render()
}

async fn show(installed: &InstalledArgs) -> Result<()> {
    let cluster = Cluster::current().await?;
    let namespace = &installed.namespace;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let Some(secret) = cluster.get(&secrets, SECRET).await? else {
        bail!("there is no Secret {SECRET} in namespace {namespace}: a running replica makes it");
    };
    let state = state(&contents(Some(&secret)), namespace);
    match installed.output {
        Output::Json => output::json(&state)?,
        Output::Table => output::text_out(&table(&state, Timestamp::now()))?,
    }
    Ok(())
}

async fn rotate(installed: &InstalledArgs) -> Result<()> {
    let cluster = Cluster::current().await?;
    let namespace = &installed.namespace;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let Some(deployment) = cluster.get(&deployments, CONFIGURATION).await? else {
        bail!("there is no Deployment {CONFIGURATION} in namespace {namespace}: nobody would serve a new certificate");
    };
    let labels = deployment.spec.and_then(|spec| spec.selector.match_labels).unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let present = contents(cluster.get(&secrets, SECRET).await?.as_ref());
    // The overlap is of two: who still serves the certificate before this one would not be trusted after one more.
    if let (Some(Validity { until, .. }), Ok(all)) =
        (Validity::of(&present.certificate), replicas(&cluster, namespace, &labels).await)
    {
        let on_the_way = relying_on_another(&all, until, Timestamp::now());
        if !on_the_way.is_empty() {
            bail!(
                "{} still serve the certificate before this one: wait until a rotation has ended",
                on_the_way.join(", ")
            );
        }
    }
    let registration = Registration {
        client: cluster.client.clone(),
        namespace: namespace.clone(),
        source: CertificateSource::Managed,
        serving: Arc::new(Serving::default()),
    };
    let rotated = registration.rotate(Timestamp::now()).await?;
    let until = Validity::of(&rotated.certificate).context("the new certificate cannot be read")?.until;
    eprintln!("pullguard: new CA and certificate written; waiting until each replica serves it, which takes some 70 s");
    let end = Instant::now() + FOLLOWED;
    let count = loop {
        match replicas(&cluster, namespace, &labels).await {
            Ok(all) if !all.is_empty() && behind(&all, until).is_empty() => break all.len(),
            Ok(all) if Instant::now() >= end => {
                let behind = behind(&all, until);
                bail!(
                    "{} do not serve the new certificate: see their log; old and new CA stay trusted",
                    behind.join(", ")
                );
            }
            // One that is not permitted at all will not be in two minutes either.
            Err(error) if Instant::now() >= end => bail!("whether the replicas serve it could not be seen: {error}"),
            Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    let state = state(&rotated, namespace);
    match installed.output {
        Output::Json => output::json(&state)?,
        Output::Table => {
            let told =
                format!("rotated: {count} replicas serve the new certificate\n\n{}", table(&state, Timestamp::now()));
            output::text_out(&told)?;
        }
    }
    Ok(())
}

/// Those that serve another certificate than the one that ends then.
fn behind(replicas: &[Replica], until: Timestamp) -> Vec<&str> {
    replicas.iter().filter(|replica| replica.until != Some(until)).map(|replica| replica.pod.as_str()).collect()
}

/// Those that serve another one which holds: whoever serves none, or one that has ended, has nothing to lose.
fn relying_on_another(replicas: &[Replica], until: Timestamp, now: Timestamp) -> Vec<&str> {
    let relies = |replica: &&Replica| replica.until.is_some_and(|served| served != until && served > now);
    replicas.iter().filter(relies).map(|replica| replica.pod.as_str()).collect()
}

/// Private keys are their owner's alone, and nothing is overwritten.
fn files(made: &Keyring, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let all = [
        ("ca.crt", &made.ca, 0o644),
        ("ca.key", &made.ca_key, 0o600),
        ("tls.crt", &made.certificate, 0o644),
        ("tls.key", &made.key, 0o600),
    ];
    for (name, text, mode) in all {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())?;
        output::text_out(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    #[test]
    fn the_state_names_each_certificate_and_who_keeps_it() {
        let first = Keyring::default().renewed(Renewal::Authority, "guard", now()).expect("certificates");
        let second = first.renewed(Renewal::Authority, "guard", now()).expect("a rotation");
        let shown = serde_json::to_value(state(&second, "guard")).expect("json");
        let roles: Vec<&str> =
            shown["certificates"].as_array().expect("a list").iter().filter_map(|one| one["role"].as_str()).collect();
        assert_eq!(roles, ["ca", "previous-ca", "serving"]);
        assert_eq!((&shown["source"], &shown["namespace"]), (&"managed".into(), &"guard".into()));
        assert_eq!(shown["certificates"][2]["names"][0], "pullguard.guard.svc");
        assert_eq!(shown["certificates"][2]["issuer"], shown["certificates"][0]["subject"]);
        let table = table(&state(&second, "guard"), now());
        assert!(table.contains("CN=pullguard.guard.svc") && table.contains("   90\n"), "{table}");
        let foreign = Keyring { ca_key: String::new(), ..first };
        assert_eq!(state(&foreign, "guard").source, "external");
    }

    #[test]
    fn a_replica_is_behind_until_it_serves_the_very_certificate() {
        let replica = |pod: &str, until| Replica { pod: pod.to_owned(), until };
        let earlier = Timestamp::from_second(1_700_000_000).ok();
        let all = [replica("a", Some(now())), replica("b", earlier), replica("c", None)];
        assert_eq!(behind(&all, now()), ["b", "c"]);
    }

    #[test]
    fn a_second_rotation_waits_for_whoever_relies_on_the_first() {
        let replica = |pod: &str, seconds| Replica { pod: pod.to_owned(), until: Timestamp::from_second(seconds).ok() };
        let (newest, before, ended) = (1_900_000_000, 1_850_000_000, 1_700_000_000);
        let none = Replica { pod: "d".to_owned(), until: None };
        let all = [replica("a", newest), replica("b", before), replica("c", ended), none];
        let newest = Timestamp::from_second(newest).expect("a time");
        assert_eq!(relying_on_another(&all, newest, now()), ["b"]);
    }
}
