//! `cargo xtask image`: the container image, by the container engine that the machine has.

use std::{env, process::Command};

use anyhow::{Result, bail};

use crate::step;

/// The engines, by preference, each with its words for building.
const ENGINES: [(&str, &[&str]); 3] = [
    ("docker", &["build"]),
    ("podman", &["build"]),
    ("buildah", &["build"]),
];

/// What to build, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The image's name and tag, as your registry has it.
    #[arg(long, default_value = concat!("ambit:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// The engine to use: docker, podman or buildah. Default: the first of them on the path.
    #[arg(long, value_parser = ENGINES.map(|(name, _)| name))]
    engine: Option<String>,
    /// Pushes it as well; the engine must be logged in to the registry.
    #[arg(long)]
    push: bool,
    /// Only prints the commands.
    #[arg(long)]
    print: bool,
}

/// Builds the image, with the engine's own output in view.
///
/// # Errors
/// There is no engine, or it failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let commands = commands(options, on_path)?;
    for arguments in commands {
        let title = arguments.join(" ");
        if options.print {
            println!("{title}");
            continue;
        }
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        step::run_in_view(&title, command)?;
    }
    Ok(())
}

/// The commands, given which programs are there.
fn commands(options: &Options, is_there: impl Fn(&str) -> bool) -> Result<Vec<Vec<String>>> {
    if options.tag.ends_with(":latest") || !has_tag(&options.tag) {
        bail!(
            "--tag {}: name a version, as in {}:{}; a node must know whether it has the image",
            options.tag,
            options.tag.trim_end_matches(":latest"),
            env!("CARGO_PKG_VERSION"),
        );
    }
    let wanted = |name: &str| match &options.engine {
        Some(engine) => engine == name,
        None => is_there(name),
    };
    let Some((engine, build)) = ENGINES.into_iter().find(|(name, _)| wanted(name)) else {
        bail!(
            "no container engine on the path: install docker, podman or buildah (on Debian: \
             apt-get install podman), or run `cargo xtask image --engine podman --print` and \
             build where there is one"
        );
    };
    let words = |arguments: &[&str]| arguments.iter().map(ToString::to_string).collect();
    let build = [&[engine], build, &["--tag", &options.tag, "."]].concat();
    let mut commands: Vec<Vec<String>> = vec![words(&build)];
    if options.push {
        commands.push(words(&[engine, "push", &options.tag]));
    }
    Ok(commands)
}

/// A colon in the last part of the name; an earlier one is before a registry's port.
fn has_tag(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').is_some_and(|(_, tag)| !tag.is_empty())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_that_is_there_builds_and_what_cannot_be_done_is_told_with_its_cure() {
        let table = [
            (
                "ambit:0.1.0",
                None,
                false,
                "docker podman",
                "docker build --tag ambit:0.1.0 .",
            ),
            (
                "ambit:0.1.0",
                None,
                false,
                "buildah podman",
                "podman build --tag ambit:0.1.0 .",
            ),
            (
                "ambit:0.1.0",
                None,
                false,
                "buildah",
                "buildah build --tag ambit:0.1.0 .",
            ),
            (
                "ambit:0.1.0",
                Some("podman"),
                false,
                "docker",
                "podman build --tag ambit:0.1.0 .",
            ),
            (
                "host:5000/a/ambit:1",
                None,
                true,
                "docker",
                "docker build --tag host:5000/a/ambit:1 .; docker push host:5000/a/ambit:1",
            ),
            ("ambit:0.1.0", None, false, "", "apt-get install podman"),
            (
                "host:5000/ambit",
                None,
                false,
                "docker",
                "as in host:5000/ambit:0.1.0",
            ),
            ("ambit:latest", None, false, "docker", "as in ambit:0.1.0"),
            ("ambit:", None, false, "docker", "name a version"),
        ];
        for (tag, engine, push, there, expected) in table {
            let options = Options {
                tag: tag.into(),
                engine: engine.map(str::to_owned),
                push,
                print: false,
            };
            let is_there = |name: &str| there.split(' ').any(|engine| engine == name);
            match commands(&options, is_there) {
                Ok(commands) => {
                    let lines: Vec<_> = commands.iter().map(|words| words.join(" ")).collect();
                    assert_eq!(lines.join("; "), expected, "{tag}");
                }
                Err(error) => assert!(error.to_string().contains(expected), "{tag}: {error}"),
            }
        }
    }
}
