//! The splice: bytes between two sockets of this node, an application's and the agent's ([`Leg`]) or two
//! applications' ([`join_between`]), go from socket to socket in the kernel, without TCP and IP.
//!
//! The agent asks for a connection to be spliced once the applications have used it. Whether the running kernel is fit for it is found out at start; where it isn't, the same
//! bytes take the way that they always took, and the reason is in the log and in
//! `ambit_splice_active`.

mod between;
pub mod btf;
mod leg;
pub mod offsets;
mod self_test;

use std::sync::OnceLock;

use ambit_common::splice::{Offsets, SpliceSettings};

use crate::capture::{
    maps,
    splice::{Kernel, Splice},
};

pub use between::{Joined, PodEnd, join_between};
pub use leg::Leg;

/// There is one kernel, and so one of these: connections needn't be told.
static ACTIVE: OnceLock<Active> = OnceLock::new();

struct Active {
    kernel: Kernel,
    limit: usize,
}

/// How the splice behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether it is wanted.
    pub enabled: bool,
    /// Bytes that may wait unread in one direction of a connection, in the kernel's memory.
    pub limit: u32,
    /// The self-test fails, for whoever wants to see what happens then.
    pub fail_self_test: bool,
}

/// Why the splice is off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody asked for it.
    #[error("--splice=off says so")]
    Unwanted,
    /// The kernel's structs aren't known.
    #[error(transparent)]
    Offsets(#[from] offsets::Error),
    /// The programs can't be used.
    #[error(transparent)]
    Programs(#[from] crate::capture::splice::Error),
    /// A map refused the settings.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// This kernel does something in another way than applications expect.
    #[error("self-test: {0}")]
    SelfTest(#[from] self_test::Error),
}

/// Finds what the programs need to know before they are loaded.
///
/// # Errors
/// [`Error`].
pub fn prepare(settings: &Settings) -> Result<Offsets, Error> {
    if !settings.enabled {
        return Err(Error::Unwanted);
    }
    Ok(offsets::of_running_kernel()?)
}

/// Tests the programs with sockets of our own, and lets connections be spliced if all is well. Blocks
/// for some milliseconds.
///
/// # Errors
/// [`Error`]; then none is spliced.
pub fn start(mut splice: Splice, settings: &Settings) -> Result<(), Error> {
    self_test::run(&mut splice, settings.fail_self_test)?;
    splice.configure(SpliceSettings {
        limit: settings.limit,
    })?;
    // Only a second start in one process could find it set.
    let _ = ACTIVE.set(Active {
        kernel: splice.kernel().clone(),
        limit: usize::try_from(settings.limit).unwrap_or(usize::MAX),
    });
    Ok(())
}
