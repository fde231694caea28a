//! The iptables rules of a classic sidecar, in a pod's own namespace.
//!
//! They do what those of Istio's init container do, in the same order.

use std::{net::IpAddr, sync::atomic::Ordering};

use super::{INBOUND_PORT, OUTBOUND_PORT, USER};
use crate::{Place, Result, ip, kube_proxy};

/// From where the inbound half reaches the application, IPv4: Istio's address for it.
pub(super) const INBOUND_SOURCE_V4: &str = "127.0.0.6";
/// The same for IPv6.
pub(super) const INBOUND_SOURCE_V6: &str = "::6";

/// The rules in a pod. Dropping them removes them, unless the lab is kept or the pod gone.
#[derive(Debug)]
pub(super) struct Rules {
    place: Place,
    v4: bool,
    v6: bool,
}

impl Rules {
    /// Writes the rules for the address families of a pod.
    ///
    /// `ready_port` isn't redirected: kubelet probes it.
    pub(super) fn install(place: &Place, addresses: &[IpAddr], ready_port: u16) -> Result<Self> {
        let own = Self {
            place: place.clone(),
            v4: addresses.iter().any(IpAddr::is_ipv4),
            v6: addresses.iter().any(IpAddr::is_ipv6),
        };
        if own.v4 {
            kube_proxy::restore(place, "iptables-restore", &rules(true, ready_port))?;
        }
        if own.v6 {
            // 127.0.0.6 is an address of lo as all of 127.0.0.0/8, ::6 isn't.
            let source = format!("address replace {INBOUND_SOURCE_V6}/128 dev lo nodad");
            ip::inside(place.namespace(), &[source])?;
            kube_proxy::restore(place, "ip6tables-restore", &rules(false, ready_port))?;
        }
        Ok(own)
    }

    /// The pod.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// With the tables go the hooks of NAT and so of conntrack, which would slow down what is
    /// measured after.
    fn remove(&self) -> Result<()> {
        const EMPTY: &str = "*nat\nCOMMIT\n";
        if self.v4 {
            kube_proxy::restore(&self.place, "iptables-restore", EMPTY)?;
        }
        if self.v6 {
            kube_proxy::restore(&self.place, "ip6tables-restore", EMPTY)?;
            let source = format!("address del {INBOUND_SOURCE_V6}/128 dev lo");
            ip::inside(self.place.namespace(), &[source])?;
        }
        Ok(())
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let kept = self.place.shared.kept.load(Ordering::Relaxed);
        if kept || !ip::namespace_path(&self.place.namespace).exists() {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("the sidecar's rules stay in {}: {error}", self.place.label);
        }
    }
}

/// The NAT table of one family, as iptables-restore reads it.
fn rules(v4: bool, ready_port: u16) -> String {
    let (loopback, source) = if v4 {
        ("127.0.0.1/32", format!("{INBOUND_SOURCE_V4}/32"))
    } else {
        ("::1/128", format!("{INBOUND_SOURCE_V6}/128"))
    };
    let mut table = "*nat\n\
         :SIDECAR_INBOUND - [0:0]\n:SIDECAR_IN_REDIRECT - [0:0]\n\
         :SIDECAR_OUTPUT - [0:0]\n:SIDECAR_REDIRECT - [0:0]\n"
        .to_owned();
    let mut rule = |text: &str| {
        table += &format!("-A {text}\n");
    };
    rule("PREROUTING -p tcp -j SIDECAR_INBOUND");
    rule(&format!(
        "SIDECAR_INBOUND -p tcp --dport {ready_port} -j RETURN"
    ));
    rule("SIDECAR_INBOUND -p tcp -j SIDECAR_IN_REDIRECT");
    rule(&format!(
        "SIDECAR_IN_REDIRECT -p tcp -j REDIRECT --to-ports {INBOUND_PORT}"
    ));
    rule(&format!(
        "SIDECAR_REDIRECT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"
    ));

    rule("OUTPUT -p tcp -j SIDECAR_OUTPUT");
    // The inbound half to the application.
    rule(&format!("SIDECAR_OUTPUT -o lo -s {source} -j RETURN"));
    for owner in ["uid", "gid"] {
        // The outbound half to the pod itself, where a service led it back: through the inbound
        // half, as from any other pod. What the application sends to itself stays as it is.
        rule(&format!(
            "SIDECAR_OUTPUT -o lo ! -d {loopback} -p tcp -m owner --{owner}-owner {USER} \
             -j SIDECAR_IN_REDIRECT"
        ));
        rule(&format!(
            "SIDECAR_OUTPUT -o lo -m owner ! --{owner}-owner {USER} -j RETURN"
        ));
        rule(&format!(
            "SIDECAR_OUTPUT -m owner --{owner}-owner {USER} -j RETURN"
        ));
    }
    rule(&format!("SIDECAR_OUTPUT -d {loopback} -j RETURN"));
    rule("SIDECAR_OUTPUT -j SIDECAR_REDIRECT");
    table + "COMMIT\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_addresses_and_the_same_rules() {
        let (v4, v6) = (rules(true, 15021), rules(false, 15021));
        let renamed = v4
            .replace("127.0.0.1/32", "::1/128")
            .replace("127.0.0.6/32", "::6/128");
        assert_eq!(renamed, v6);
    }

    #[test]
    fn the_proxy_itself_is_left_alone_before_anything_is_redirected() {
        let table = rules(true, 15021);
        let at = |rule: &str| {
            let found = table.lines().position(|line| line == rule);
            found.unwrap_or_else(|| panic!("no {rule:?} in\n{table}"))
        };
        let all = at("-A SIDECAR_OUTPUT -j SIDECAR_REDIRECT");
        for earlier in [
            "-A SIDECAR_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
            "-A SIDECAR_OUTPUT -m owner --uid-owner 1337 -j RETURN",
            "-A SIDECAR_OUTPUT -m owner --gid-owner 1337 -j RETURN",
            "-A SIDECAR_OUTPUT -d 127.0.0.1/32 -j RETURN",
        ] {
            assert!(at(earlier) < all, "{earlier}");
        }
        assert!(
            at("-A SIDECAR_INBOUND -p tcp --dport 15021 -j RETURN")
                < at("-A SIDECAR_INBOUND -p tcp -j SIDECAR_IN_REDIRECT")
        );
    }
}
