//! `cargo xtask setup`: finds or installs what the build, the checks and the tests need.
//!
//! [`facts`] looks at the machine, [`plan`] decides from what was found, [`apply`] installs. As a
//! step may reveal the next (a compiler's LLVM decides which linker), this goes round until the
//! plan is empty; a step is tried once.

use anyhow::{Result, bail};
use ebpf_toolchain::Toolchain;

mod apply;
mod facts;
mod needs;
mod plan;

use needs::{NEEDS, Need};

pub(crate) use facts::is_root;

/// What to set up.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only what building the agent takes, and nothing of the checks and tests.
    #[arg(long)]
    build: bool,
}

/// The subcommand: installs what is missing, and says with what the build will work.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.build {
        install(&[])?;
    } else {
        ensure()?;
    }
    println!(
        "set up: eBPF compiler and linker: {}",
        Toolchain::find()?.describe()
    );
    Ok(())
}

/// Installs what is missing; takes well under a second when nothing is.
///
/// # Errors
/// Something is missing and can't be installed: the message says what to install by hand.
pub(crate) fn ensure() -> Result<()> {
    install(NEEDS)
}

/// Installs what is missing of `needs`, and of the eBPF toolchain.
fn install(needs: &'static [Need]) -> Result<()> {
    let mut tried = Vec::new();
    loop {
        let facts = facts::gather(needs, tried);
        let steps = plan::steps(&facts);
        if steps.is_empty() {
            let by_hand = plan::by_hand(&facts);
            if by_hand.is_empty() {
                return Ok(());
            }
            bail!(
                "set-up is incomplete. To install by hand:\n  {}",
                by_hand.join("\n  ")
            );
        }
        tried = facts.tried;
        for step in steps {
            // A failure has been shown; whether it matters is seen from the facts of the next round.
            let _ = apply::run(&step);
            tried.push(step);
        }
    }
}
