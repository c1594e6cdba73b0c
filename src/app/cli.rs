//! What the command line says, as typed values. Every flag of `run` has an environment variable, because a Deployment
//! is patched there most easily.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::manifests::Validate;
use crate::core::inventory::InventorySettings;

/// The cluster-level answer to container images that cannot be pulled in Kubernetes.
#[derive(Clone, Debug, Parser)]
#[command(name = "pullguard", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run in the cluster: the admission webhook, the controller, or both.
    Run(Box<RunArgs>),
    /// Judge manifests as the webhook would, with a cluster or without one.
    ///
    /// Exit status: 0 allowed or warned, 1 denied, 2 it could not judge.
    Check(CheckArgs),
    /// Say why a pod's image does not come, and what to do.
    ///
    /// Exit status: 0 explained, 2 it could not be read.
    Explain(ExplainArgs),
    /// Say whether an installation is well, and whether it can hurt the cluster.
    ///
    /// Looks at the current cluster; with -f at manifests alone. Exit status: 0 all is well, warnings allowed; 1 something
    /// failed; 2 it could not look, or not at all of it.
    Doctor(DoctorArgs),
    /// Show the webhook's certificates, rotate them, or make some.
    ///
    /// Exit status: 0 done, 2 it could not be done.
    Certs(CertsArgs),
    /// Print the custom resource definitions.
    Crds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers admission reviews. All replicas do.
    Webhook,
    /// Acts on pull failures. One replica does, by election.
    Controller,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Certificate {
    /// Pullguard makes and renews its own, in its Secret.
    Managed,
    /// Somebody else (cert-manager) writes the Secret; Pullguard reads it.
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What this replica does.
    #[arg(long, env = "PULLGUARD_ROLE", value_enum, value_delimiter = ',', default_value = "webhook,controller")]
    pub role: Vec<Role>,
    /// Where the webhook listens, with TLS. `[::]` is every address, of IPv4 as well.
    #[arg(long, env = "PULLGUARD_WEBHOOK_ADDRESS", default_value = "[::]:8443")]
    pub webhook_address: SocketAddr,
    /// Where /livez, /readyz and /metrics are, without TLS.
    #[arg(long, env = "PULLGUARD_PROBES_ADDRESS", default_value = "[::]:8080")]
    pub probes_address: SocketAddr,
    #[command(flatten)]
    pub inventory: InventoryArgs,
    /// Pullguard's own namespace: its Secret, Lease and Service are there, and no policy reaches it.
    #[arg(long, env = "POD_NAMESPACE", default_value = OWN_NAMESPACE)]
    pub namespace: String,
    /// This replica's name, for the election.
    #[arg(long, env = "POD_NAME", default_value = "pullguard")]
    pub pod_name: String,
    /// Who makes the webhook's certificate.
    #[arg(long, env = "PULLGUARD_CERTIFICATE", value_enum, default_value = "managed")]
    pub certificate: Certificate,
    #[arg(long, env = "PULLGUARD_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module.
    #[arg(long, env = "PULLGUARD_LOG", default_value = "info")]
    pub log: String,
    /// Jobs and pods failed and pods deleted at most, in one cycle of the controller.
    #[arg(long, env = "PULLGUARD_MAX_EFFECTS_PER_CYCLE", default_value_t = 50)]
    pub max_effects_per_cycle: usize,
    /// The same within a minute, in one namespace.
    #[arg(long, env = "PULLGUARD_MAX_EFFECTS_PER_NAMESPACE", default_value_t = 100)]
    pub max_effects_per_namespace: usize,
    /// The same within a minute, in the cluster.
    #[arg(long, env = "PULLGUARD_MAX_EFFECTS_PER_CLUSTER", default_value_t = 300)]
    pub max_effects_per_cluster: usize,
    /// So many different images that fail at one registry or node within 5 minutes, or that one policy denies to Jobs, are
    /// an outage, not a bad image: nothing is declared permanent there meanwhile.
    #[arg(long, env = "PULLGUARD_BRAKE_IMAGES", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..))]
    pub brake_images: u16,
    /// The same for so many nodes that fail at one registry.
    #[arg(long, env = "PULLGUARD_BRAKE_NODES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..))]
    pub brake_nodes: u16,
}

/// Where Pullguard is installed, unless it is told otherwise.
pub const OWN_NAMESPACE: &str = "pullguard";

/// What makes a node's state one that will pass: the same for the webhook, and for a check of what it would say.
#[derive(Clone, Debug, Args)]
pub struct InventoryArgs {
    /// A node younger than this proves no absence: its list may not be filled yet.
    #[arg(long, env = "PULLGUARD_YOUNG_NODE", value_parser = duration, default_value = "2m")]
    pub young_node: Duration,
    /// Taints whose key begins so come and go with a node's start, trouble or end: they prove no absence. Separated by
    /// commas; given, it replaces the default.
    #[arg(long, env = "PULLGUARD_TRANSIENT_TAINTS", value_delimiter = ',', default_values_t = InventorySettings::default().transient_taints)]
    pub transient_taints: Vec<String>,
}

impl InventoryArgs {
    pub fn settings(&self) -> InventorySettings {
        // An empty prefix would begin every key: `PULLGUARD_TRANSIENT_TAINTS=` means none.
        let prefixes = self.transient_taints.iter().filter(|prefix| !prefix.is_empty());
        InventorySettings { young_node: self.young_node, transient_taints: prefixes.cloned().collect() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: its shape stays.
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Manifests in YAML or JSON; - is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub files: Vec<String>,
    /// NodeImagePolicies, instead of the cluster's.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub policies: Vec<String>,
    /// Nodes (kubectl get nodes -o yaml), instead of the cluster's. With --policies too, no cluster is asked.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub inventory: Vec<String>,
    /// Namespaces with their labels, instead of the cluster's.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub namespaces: Vec<String>,
    /// The namespace of manifests that name none.
    #[arg(short = 'n', long, default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub settings: InventoryArgs,
    /// What a field is that Pullguard does not know.
    #[arg(long, value_enum, default_value = "strict")]
    pub validate: Validate,
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["pod", "reason", "message"]))]
pub struct ExplainArgs {
    /// The pod: pod/NAME or NAME.
    #[arg(value_name = "POD", conflicts_with_all = ["reason", "message", "image"])]
    pub pod: Option<String>,
    /// The pod's namespace; without it, the one of the kubeconfig's context.
    #[arg(short = 'n', long, conflicts_with_all = ["reason", "message", "image"])]
    pub namespace: Option<String>,
    /// Without a cluster: the waiting reason, or the Event's.
    #[arg(long)]
    pub reason: Option<String>,
    /// Without a cluster: the kubelet's message.
    #[arg(long)]
    pub message: Option<String>,
    /// Without a cluster: the container's image.
    #[arg(long, requires = "what")]
    pub image: Option<String>,
    #[command(flatten)]
    pub settings: InventoryArgs,
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    pub output: Output,
}

/// Which installation.
#[derive(Clone, Debug, Args)]
pub struct InstalledArgs {
    /// Pullguard's own namespace.
    #[arg(short = 'n', long, env = "POD_NAMESPACE", default_value = OWN_NAMESPACE, global = true)]
    pub namespace: String,
    #[arg(short = 'o', long, value_enum, default_value = "table", global = true)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Manifests (kubectl kustomize FOLDER) instead of a cluster: is it proven that they lock nobody out? - is standard
    /// input.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1..)]
    pub files: Vec<String>,
    #[command(flatten)]
    pub installed: InstalledArgs,
    /// What a field is that Pullguard does not know.
    #[arg(long, value_enum, default_value = "strict")]
    pub validate: Validate,
}

#[derive(Clone, Debug, Args)]
pub struct CertsArgs {
    /// Without one: show what the Secret holds.
    #[command(subcommand)]
    pub action: Option<CertsAction>,
    #[command(flatten)]
    pub installed: InstalledArgs,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CertsAction {
    /// Make a new CA and certificate on the cluster, and wait until all replicas serve it.
    ///
    /// Old and new CA are trusted meanwhile, so no review fails. The old one stays trusted until it ends, or until the
    /// next rotation: if its key has leaked, rotate twice.
    Rotate,
    /// Make a CA and a certificate without a cluster: as a Secret, to be applied before Pullguard, or as files.
    Make {
        /// A folder for ca.crt, ca.key, tls.crt and tls.key, instead of a Secret on standard output.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// As in Go and in our policies: `90s`, `2m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is a number with a unit, such as 90s, 2m or 1h30m".to_owned();
    let parsed: kube::core::Duration = text.parse().map_err(|_| wrong())?;
    if parsed.is_negative() { Err(wrong()) } else { Ok(parsed.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_has_every_flag_of_run() {
        let reference = include_str!("../../docs/reference.md");
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("run");
        let arguments = run.get_arguments().filter(|argument| argument.get_env().is_some());
        let rows = arguments.map(|argument| {
            let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            let (flag, variable) = (argument.get_long().expect("a flag"), argument.get_env().map(text).expect("one"));
            let default = argument.get_default_values().iter().map(|value| text(value)).collect::<Vec<_>>().join(",");
            (format!("| `--{flag}` | `{variable}` |"), default)
        });
        let rows: Vec<(String, String)> = rows.collect();
        assert!(rows.len() > 10);
        for (row, default) in rows {
            let line = reference.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("docs/reference.md has no row {row}"));
            assert!(
                line.contains(&format!("| `{default}` |")) || row.contains("transient"),
                "{line} has not {default}"
            );
        }
    }

    #[test]
    fn run_needs_no_flag_and_takes_roles_in_one_word() {
        let Command::Run(run) = parse("pullguard run").expect("parses") else { panic!("run") };
        assert_eq!(run.role, [Role::Webhook, Role::Controller]);
        assert_eq!(run.inventory.settings(), InventorySettings::default());
        let Command::Run(run) =
            parse("pullguard run --role webhook --young-node 1s --transient-taints a/,b").expect("parses")
        else {
            panic!("run")
        };
        assert_eq!(
            (run.role.as_slice(), run.inventory.young_node),
            ([Role::Webhook].as_slice(), Duration::from_secs(1))
        );
        assert_eq!(run.inventory.settings().transient_taints, ["a/", "b"]);
        assert!(parse("pullguard run --young-node 2").is_err() && parse("pullguard run --young-node -2m").is_err());
    }

    #[test]
    fn check_takes_several_files_and_standard_input() {
        let Command::Check(check) =
            parse("pullguard check -f a.yaml -f - b.json --policies p --inventory n -o json").expect("parses")
        else {
            panic!("check")
        };
        assert_eq!(check.files, ["a.yaml", "-", "b.json"]);
        assert_eq!(check.output, Output::Json);
        assert!(parse("pullguard check").is_err());
    }

    #[test]
    fn explain_takes_a_pod_or_words_but_not_both() {
        for right in ["pod/a", "a -n b", "--reason ErrImagePull --message x --image y", "--message x -o json"] {
            assert!(parse(&format!("pullguard explain {right}")).is_ok(), "{right}");
        }
        for wrong in ["", "--image y", "pod/a --reason x", "-n b --message x"] {
            assert!(parse(format!("pullguard explain {wrong}").trim()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_doctor_takes_manifests_or_a_cluster_and_certs_takes_an_action_or_none() {
        let Command::Doctor(doctor) = parse("pullguard doctor -f a.yaml - -n guard -o json").expect("parses") else {
            panic!("doctor")
        };
        assert_eq!((doctor.files.len(), doctor.installed.namespace.as_str()), (2, "guard"));
        assert_eq!(doctor.installed.output, Output::Json);
        let action = |line: &str| match parse(line).expect("parses") {
            Command::Certs(certs) => (certs.action, certs.installed.namespace),
            _ => panic!("certs"),
        };
        assert_eq!(action("pullguard certs").0, None);
        assert_eq!(action("pullguard certs rotate -n guard"), (Some(CertsAction::Rotate), "guard".to_owned()));
        assert_eq!(action("pullguard certs -n guard make --out d").1, "guard");
        assert!(parse("pullguard certs revoke").is_err());
    }
}
