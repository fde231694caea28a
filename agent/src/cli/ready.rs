//! `ambit ready`.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use clap::Args;

use super::agent::Agent;
use crate::admin::StatusView;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The agent that is meant, as its own --instance. While one takes over from another, either may
    /// answer.
    #[arg(long, env = "AMBIT_INSTANCE")]
    instance: Option<String>,
    /// Where the agent answers, as it was told itself.
    #[arg(long, env = "AMBIT_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let status: StatusView = Agent::new(arguments.admin_address).ask("status").await?;
    check(&status, arguments.instance.as_deref())?;
    println!("ready");
    Ok(())
}

fn check(status: &StatusView, instance: Option<&str>) -> Result<()> {
    if instance.is_some() && status.instance.as_deref() != instance {
        bail!("another agent leads this node");
    }
    let missing: Vec<_> = status.missing().collect();
    if !missing.is_empty() {
        bail!("not ready, waits for: {}", missing.join(", "));
    }
    Ok(())
}
