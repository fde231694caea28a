//! `ambit uninstall`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{capture, takeover};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The BPF file system that the agent used.
    #[arg(long, env = "AMBIT_BPFFS", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Where its agents met.
    #[arg(long, env = "AMBIT_RUN_DIRECTORY", default_value = "/run/ambit")]
    run_directory: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    capture::uninstall::uninstall(&arguments.bpffs).await?;
    Ok(takeover::remove(&arguments.run_directory)?)
}
