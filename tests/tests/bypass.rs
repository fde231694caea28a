//! What might get past the hooks: packets that don't look like what they are.

use lab::{Family, Lab, Mesh, PodNetwork, PodSpec, Result, Way};

const STRICT: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: vault
spec:
  mtls:
    mode: STRICT
";

/// A frame that is switched without netfilter keeps the socket of the pod that sent it.
#[test]
fn a_pod_isnt_taken_for_the_node_whether_or_not_the_bridge_calls_iptables() -> Result<()> {
    for (family, calls_iptables) in [
        (Family::V4, "0"),
        (Family::V4, "1"),
        (Family::V6, "0"),
        (Family::V6, "1"),
    ] {
        let case = format!("{family:?}, bridge-nf-call-* = {calls_iptables}");
        let lab = Lab::builder("bridge-nf")
            .pods(PodNetwork::Bridged)
            .family(family)
            .build()?;
        let node = lab.node("a");
        for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            node.sysctl(&format!("bridge/{setting}"), calls_iptables)?;
        }
        lab.namespace("vault").enrolled()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        lab.apply("strict.yaml", STRICT)?;
        let strict = node.pod("strict", PodSpec::in_namespace("vault"))?;
        let open = node.pod("open", PodSpec::in_namespace("shop"))?;
        let stranger = node.pod("stranger", PodSpec::in_namespace("street"))?;
        let (mut to_strict, mut to_open) = (strict.echo(8080)?, open.echo(8080)?);
        let _mesh = Mesh::default().start(&lab)?;

        let way = stranger.talk(&mut to_strict, strict.at(8080))?;
        assert_eq!(way, Way::reset(), "{case}: to the STRICT pod");
        let (way, diverted) =
            node.counting("diverted", || stranger.talk(&mut to_open, open.at(8080)))?;
        assert_eq!(way, Way::Carried, "{case}: to the PERMISSIVE pod");
        assert!(diverted >= 1.0, "{case}: diverted moved by {diverted}");
        let (way, own) = node.counting("node_process", || {
            node.talk(&mut to_strict, strict.at(8080))
        })?;
        assert_eq!(way, Way::Direct, "{case}: from the node itself");
        assert!(own >= 1.0, "{case}: node_process moved by {own}");
    }
    Ok(())
}
