//! The command line of the test cluster; `cluster help` lists what it does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::{Cluster, Component, DEFAULT_NAME, Options, TestImage, program_image};

const HELP: &str = "cluster: a real Kubernetes of two nodes on this machine

  cluster up [--nodes N]                     bring it up; does nothing if it is up
  cluster down [--all | --others]            remove everything of it, or of every cluster of this checkout, or of all but it
  cluster status                             what runs, and what else of it exists
  cluster import NODE NAME:TAG               put a small image of that name on a node
  cluster remove NODE NAME:TAG               take it off
  cluster images NODE                        what is on a node
  cluster load NODE FILE                     load an image archive on a node
  cluster push [--platform OS/ARCH] NAME:TAG put a small image into the registry; prints the reference;
                                             with a platform: an index that holds it for that one alone
  cluster push --password NAME:TAG           into the registry that asks for a password
  cluster stop|kill|freeze|thaw|start|restart COMPONENT
  cluster kubectl ARGS...                    kubectl as administrator
  cluster inside PROGRAM ARGS...             run a program in the cluster's network
  cluster image BINARY NAME:TAG FILE         make the image of a static program (no cluster needed)

Each takes --name CLUSTER first (default: main).
";

fn main() -> ExitCode {
    match answer(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer(mut args: Vec<String>) -> Result<()> {
    // The verb is the first word that is no option of ours.
    let name = value_of(&mut args, "--name")?.unwrap_or_else(|| DEFAULT_NAME.to_owned());
    let verb = if args.is_empty() { "help".to_owned() } else { args.remove(0) };
    let there = || Cluster::attach(&name).with_context(|| "`cluster up` brings it up".to_owned());
    match verb.as_str() {
        "help" | "--help" | "-h" => print!("{HELP}"),
        "up" => {
            let mut options = Options::named(&name);
            if let Some(nodes) = value_of(&mut args, "--nodes")? {
                options.nodes = nodes.parse().context("--nodes takes a number")?;
            }
            let [] = words(args)?;
            Cluster::up(&options)?;
        }
        "down" => {
            let (all, others) = (take(&mut args, "--all"), take(&mut args, "--others"));
            let [] = words(args)?;
            let mut names = if all || others { Cluster::names()? } else { vec![name.clone()] };
            names.retain(|each| all || (*each == name) != others);
            for name in names {
                Cluster::down(&name)?;
            }
        }
        "status" => status(&name)?,
        "import" => {
            let [node, image] = words(args)?;
            there()?.import(node.parse()?, &image)?;
        }
        "remove" => {
            let [node, image] = words(args)?;
            there()?.remove_image(node.parse()?, &image)?;
        }
        "images" => {
            let [node] = words(args)?;
            println!("{}", there()?.list_images(node.parse()?)?.join("\n"));
        }
        "load" => {
            let [node, file] = words(args)?;
            there()?.load_tar(node.parse()?, Path::new(&file))?;
        }
        "push" => {
            let platform = value_of(&mut args, "--platform")?;
            let password = take(&mut args, "--password");
            let [image] = words(args)?;
            let (there, image) = (there()?, TestImage::new(&image));
            println!(
                "{}",
                match platform {
                    Some(_) if password => bail!("--platform and --password do not go together"),
                    Some(platform) => there.push_index(&image.platform(&platform))?,
                    None if password => there.push_with_password(&image)?,
                    None => there.push_image(&image)?,
                }
            );
        }
        "stop" | "kill" | "freeze" | "thaw" | "start" | "restart" => {
            let [component] = words(args)?;
            let (there, component): (_, Component) = (there()?, component.parse()?);
            match verb.as_str() {
                "stop" => there.stop(component),
                "kill" => there.kill(component),
                "freeze" => there.freeze(component),
                "thaw" => there.thaw(component),
                "start" => there.start(component),
                _ => there.restart(component),
            }?;
        }
        "kubectl" => return Err(there()?.kubectl_command().args(args).exec().into()),
        "inside" => {
            let (program, rest) = args.split_first().context("inside takes a program")?;
            return Err(there()?.inside(program).args(rest).exec().into());
        }
        "image" => {
            let [binary, image, file] = words(args)?;
            let file = Path::new(&file);
            if let Some(directory) = file.parent() {
                fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
            }
            let archive = program_image(&image, Path::new(&binary))?;
            fs::write(file, &archive).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{image}: {} ({:.1} MB)", file.display(), archive.len() as f64 / 1e6);
        }
        other => bail!("{other:?} is nothing it can do; `cluster help` lists what is"),
    }
    Ok(())
}

/// Takes `--option value` out of our own options: kubectl's and others' come after the verb and are theirs.
fn value_of(args: &mut Vec<String>, option: &str) -> Result<Option<String>> {
    let foreign = args.iter().position(|word| word == "kubectl" || word == "inside").unwrap_or(args.len());
    let Some(at) = args.iter().take(foreign).position(|word| word == option) else { return Ok(None) };
    args.remove(at);
    if at >= args.len() {
        bail!("{option} takes a value");
    }
    Ok(Some(args.remove(at)))
}

fn take(args: &mut Vec<String>, flag: &str) -> bool {
    args.iter().position(|word| word == flag).map(|at| args.remove(at)).is_some()
}

fn words<const N: usize>(args: Vec<String>) -> Result<[String; N]> {
    let given = args.join(" ");
    args.try_into().map_err(|_| anyhow::anyhow!("it takes {N} words, not {given:?}; `cluster help` says which"))
}

fn status(name: &str) -> Result<()> {
    if let Ok(cluster) = Cluster::attach(name) {
        for component in Component::of(&cluster.nodes()) {
            println!("{component:20} {}", if cluster.is_running(component) { "runs" } else { "STOPPED" });
        }
        return Ok(());
    }
    let left = Cluster::leftovers(name)?;
    if left.is_empty() {
        println!("cluster {name} is down, and nothing of it is left");
    } else {
        println!("cluster {name} is not up, but these are there (`down` removes them):\n{}", left.join("\n"));
    }
    Ok(())
}
