//! `ambit uninstall`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::capture;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The BPF file system that the agent used.
    #[arg(long, env = "AMBIT_BPFFS", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    Ok(capture::uninstall::uninstall(&arguments.bpffs).await?)
}
