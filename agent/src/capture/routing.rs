//! Routing for captured packets: one rule and one route for each family makes packets with a
//! capture mark local to the node, so that they reach the socket a hook has assigned.

use std::net::{Ipv4Addr, Ipv6Addr};

use ambit_common::mark;
use futures::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        route::{RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

/// The routing table that holds the one local route.
pub(super) const TABLE: u32 = 1538;
/// Before the tables of CNIs that look at marks of their own, after the kernel's local table.
const RULE_PRIORITY: u32 = 150;
const LOOPBACK: u32 = 1;
/// Off by default. In a container `/proc/sys` is read-only, and the node's is mounted beside it.
const ACCEPT_LOCAL: [&str; 2] = [
    "/host/proc/sys/net/ipv4/conf/lo/accept_local",
    "/proc/sys/net/ipv4/conf/lo/accept_local",
];

/// Installs rules and routes. Those that an earlier agent left stay, for open connections need them; only
/// what another version made otherwise is removed.
///
/// A family that the kernel doesn't have is left out.
///
/// # Errors
/// The kernel's refusal.
pub(super) async fn install(handle: &Handle, ipv6: bool) -> Result<(), rtnetlink::Error> {
    add_route(handle, local_route_v4()).await?;
    let rule = handle.rule().add().v4().action(RuleAction::ToTable);
    add_rule(
        rule.table_id(TABLE)
            .priority(RULE_PRIORITY)
            .fw_mark(mark::CAPTURE),
    )
    .await?;
    if ipv6 {
        add_route(handle, local_route_v6()).await?;
        let rule = handle.rule().add().v6().action(RuleAction::ToTable);
        add_rule(
            rule.table_id(TABLE)
                .priority(RULE_PRIORITY)
                .fw_mark(mark::CAPTURE),
        )
        .await?;
    }
    remove_rules(handle, |rule| !is_as_added(rule)).await
}

/// Removes rules and routes. What isn't there is no error.
///
/// # Errors
/// The kernel's refusal.
pub(super) async fn remove(handle: &Handle) -> Result<(), rtnetlink::Error> {
    // Where it can't be written it wasn't written before.
    let _ = accept_local("0");
    remove_rules(handle, |_| true).await?;
    for route in [local_route_v4(), local_route_v6()] {
        match handle.route().del(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is_absent(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Lets packets that bear an address of the node as source come in by loopback, where the
/// programs send those that a masquerade made so.
///
/// Without it clients that come through a masquerade don't reach enrolled pods over IPv4; nothing
/// else needs it.
pub(super) fn accept_node_addresses_on_loopback() {
    if let Err(error) = accept_local("1") {
        tracing::warn!(
            "net.ipv4.conf.lo.accept_local: {error}; clients that come through a NodePort's \
             masquerade won't reach enrolled pods over IPv4 until it is 1"
        );
    }
}

fn accept_local(value: &str) -> std::io::Result<()> {
    let [beside, own] = ACCEPT_LOCAL;
    std::fs::write(beside, value).or_else(|_| std::fs::write(own, value))
}

async fn add_rule<T>(mut request: rtnetlink::RuleAddRequest<T>) -> Result<(), rtnetlink::Error> {
    request
        .message_mut()
        .attributes
        .push(RuleAttribute::FwMask(mark::CAPTURE_MASK));
    unless_there(request.execute().await)
}

async fn add_route(handle: &Handle, route: RouteMessage) -> Result<(), rtnetlink::Error> {
    unless_there(handle.route().add(route).execute().await)
}

fn unless_there(added: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match added {
        Err(rtnetlink::Error::NetlinkError(error))
            if error.to_io().raw_os_error() == Some(libc::EEXIST) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Removes those of our rules that are `unwanted`.
async fn remove_rules(
    handle: &Handle,
    unwanted: impl Fn(&RuleMessage) -> bool,
) -> Result<(), rtnetlink::Error> {
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules: Vec<RuleMessage> = handle.rule().get(version).execute().try_collect().await?;
        for rule in rules
            .into_iter()
            .filter(|rule| is_ours(rule) && unwanted(rule))
        {
            handle.rule().del(rule).execute().await?;
        }
    }
    Ok(())
}

fn is_as_added(rule: &RuleMessage) -> bool {
    [
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::FwMask(mark::CAPTURE_MASK),
    ]
    .iter()
    .all(|attribute| rule.attributes.contains(attribute))
}

fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Table(TABLE))
        && rule
            .attributes
            .contains(&RuleAttribute::FwMark(mark::CAPTURE))
}

/// No such route, or no such family in this kernel.
fn is_absent(error: &rtnetlink::packet_core::ErrorMessage) -> bool {
    let code = error.to_io().raw_os_error();
    [
        libc::ESRCH,
        libc::ENOENT,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
    ]
    .into_iter()
    .any(|absent| code == Some(absent))
}

fn local_route_v4() -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .output_interface(LOOPBACK)
        .table_id(TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build()
}

fn local_route_v6() -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
        .output_interface(LOOPBACK)
        .table_id(TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build()
}
