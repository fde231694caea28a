//! Removing every trace of Ambit from a node.

use std::{fs, io, path::Path};

use aya::programs::TcAttachType;
use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        link::{LinkAttribute, LinkMessage},
        tc::{TcHandle, TcMessage},
    },
};

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
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        for link in &links {
            for attribute in &link.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    remove_filters(&handle, link.header.index, name).await?;
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

/// Removes the filters of [`attach::Mechanism::Clsact`] from a device, and the qdisc that they were
/// on if nobody else's are there: an empty one does nothing.
async fn remove_filters(handle: &Handle, index: u32, name: &str) -> Result<(), rtnetlink::Error> {
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    if !priorities(handle, index)
        .await
        .contains(&attach::FILTER_PRIORITY)
    {
        return Ok(());
    }
    attach::detach_filter(name, TcAttachType::Ingress);
    attach::detach_filter(name, TcAttachType::Egress);
    if !priorities(handle, index).await.is_empty() {
        return Ok(());
    }
    let mut request = handle.qdisc().del(index);
    request.message_mut().header.parent = TcHandle::CLSACT;
    request.execute().await
}

/// Priorities of the filters on a device's clsact qdisc; none if it has no such qdisc.
async fn priorities(handle: &Handle, index: i32) -> Vec<u16> {
    let filters = || handle.traffic_filter(index).get();
    let mut found = Vec::new();
    for request in [filters().ingress(), filters().egress()] {
        let messages: Result<Vec<TcMessage>, _> = request.execute().try_collect().await;
        // The upper half of the field is the priority, the lower one the protocol.
        let priority = |message: &TcMessage| u16::try_from(message.header.info >> 16).ok();
        found.extend(messages.unwrap_or_default().iter().filter_map(priority));
    }
    found
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
