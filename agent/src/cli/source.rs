//! Where a role takes Kubernetes objects from.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) use crate::discovery::source::Settings;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Directory,
    Kubernetes,
}

#[derive(Debug, Args)]
#[group(id = "SourceArguments")]
pub(super) struct Arguments {
    /// Where Kubernetes objects come from. directory: files; kubernetes: an API server.
    #[arg(
        long = "source",
        env = "AMBIT_SOURCE",
        value_enum,
        default_value = "directory"
    )]
    kind: Kind,
    /// Directory of Kubernetes manifests, for --source directory; watched for change.
    #[arg(long, env = "AMBIT_DIRECTORY", default_value = "/etc/ambit/manifests")]
    directory: PathBuf,
    /// File that says where the API server is, for --source kubernetes, if that isn't the one of the
    /// cluster that this runs in.
    #[arg(long, env = "AMBIT_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

impl From<Arguments> for Settings {
    fn from(arguments: Arguments) -> Self {
        match arguments.kind {
            Kind::Directory => Self::Directory(arguments.directory),
            Kind::Kubernetes => Self::Kubernetes {
                kubeconfig: arguments.kubeconfig,
            },
        }
    }
}
