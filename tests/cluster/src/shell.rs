//! Other programs: run one and turn its failure into a sentence; say what is being done; wait for something with an end.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// The cluster is on this machine: whatever proxy leads to the world does not lead there.
pub fn without_proxy(command: &mut Command) -> &mut Command {
    for proxy in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

/// Runs to the end; a failure carries what the program said.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    judge(command, output)
}

/// Like [`run`], with bytes on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    let output = output_with_input(command, input)?;
    judge(command, output)
}

/// The output whatever the exit code.
pub(crate) fn output_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", name(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading is judged by its exit code, not by our broken pipe.
        let _broken_pipe = stdin.write_all(input);
    }
    child.wait_with_output().with_context(|| format!("cannot wait for {}", name(command)))
}

fn judge(command: &Command, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    Err(anyhow!("{} {}: {} ({})", name(command), words.join(" "), said.trim(), output.status))
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Whether it ran and ended well; what it says is of no interest.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// One line of what is being done, on standard error: standard output is for results.
pub(crate) fn say(cluster: &str, text: &str) {
    eprintln!("cluster {cluster}: {text}");
}

/// Asks again and again until it is so. An error from `ask` ends the waiting.
pub(crate) fn wait_for(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        if ask()? {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("{what}: not so after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
