//! Removing every trace of Ambit from a node.

use std::{fs, io, path::Path};

use aya::programs::TcAttachType;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{attach, loader, nftables, routing};

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Netlink isn't there.
    #[error("opening netlink: {0}")]
    Netlink(#[from] io::Error),
    /// Rules, routes or devices.
    #[error("removing rules and routes: {0}")]
    Routing(#[from] rtnetlink::Error),
    /// The nftables table.
    #[error("removing the nftables table: {0}")]
    Nftables(#[source] io::Error),
    /// Pins.
    #[error("removing {path}: {source}")]
    Pins {
        /// The directory.
        path: std::path::PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Removes links, programs, maps, rules, routes and the table. What isn't there is no error.
///
/// # Errors
/// The first thing that could not be removed.
pub async fn uninstall(bpffs: &Path) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let result = async {
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            for attribute in &link.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    attach::detach_filter(name, TcAttachType::Ingress);
                    attach::detach_filter(name, TcAttachType::Egress);
                }
            }
        }
        // Links first: they are what holds the programs, and a program holds its maps.
        for directory in [loader::link_directory(bpffs), loader::map_directory(bpffs)] {
            remove_directory(&directory)?;
        }
        remove_directory(&bpffs.join("ambit"))?;
        routing::remove(&handle).await?;
        nftables::remove().map_err(Error::Nftables)
    };
    let result = result.await;
    connection.abort();
    result
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Pins {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
