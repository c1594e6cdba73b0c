//! Pullguard, from the command line to its exit status.

use std::process::ExitCode;

use clap::Parser;
use pullguard::app::{self, cli::Cli};

fn main() -> ExitCode {
    // One provider of cryptography, chosen before the first handshake.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("pullguard: another provider of cryptography is installed already");
        return ExitCode::from(2);
    }
    app::main(Cli::parse())
}
