//! The one binary: every role and every operator command of Ambit.

mod allocator;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match ambit::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ambit: {error:#}");
            ExitCode::FAILURE
        }
    }
}
