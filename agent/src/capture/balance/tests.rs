use super::*;
use crate::discovery::{
    manifest::{self, Format},
    reduce::Reducer,
    store::{Change, Store},
};

/// Maps with room for this many endpoints.
struct SmallMaps {
    balances: HashMap<SocketAddr, Balance>,
    room: usize,
    writes: usize,
}

impl SmallMaps {
    fn new(room: usize) -> Self {
        Self {
            balances: HashMap::new(),
            room,
            writes: 0,
        }
    }

    /// VIP, endpoints in all, and the ports of those that are here.
    fn shown(&self) -> Vec<(String, u32, Vec<u16>)> {
        let shown = self.balances.iter().map(|(frontend, balance)| {
            let here = balance.here.iter().map(SocketAddr::port);
            (frontend.to_string(), balance.endpoints, here.collect())
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown
    }
}

impl BalanceMaps for SmallMaps {
    fn balances(&self) -> HashMap<SocketAddr, Balance> {
        self.balances.clone()
    }

    fn set_balance(
        &mut self,
        frontend: SocketAddr,
        before: &Balance,
        after: &Balance,
    ) -> Result<(), maps::Error> {
        self.writes += 1;
        let held = self.balances.remove(&frontend).unwrap_or_default();
        assert_eq!(held, *before);
        let taken: usize = self
            .balances
            .values()
            .map(|balance| balance.here.len())
            .sum();
        if taken + after.here.len() > self.room {
            return Err(maps::Error::refusal(libc::E2BIG));
        }
        if !after.here.is_empty() {
            self.balances.insert(frontend, after.clone());
        }
        Ok(())
    }
}

/// A Service with a VIP of each family and one port; endpoints are node and target port.
fn service(spec: &str, endpoints: &[(&str, u16)]) -> Vec<Change> {
    let slices = endpoints.iter().map(|(node, port)| {
        format!(
            "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{namespace: shop, name: s{port}, \
             labels: {{kubernetes.io/service-name: till}}}}, ports: [{{port: {port}}}], \
             endpoints: [{{addresses: [10.0.0.1], nodeName: {node}}}]}}\n"
        )
    });
    let slices: String = slices.collect();
    let yaml = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: till}}, \
         spec: {{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], \
         ports: [{{port: 80}}]{spec}}}}}\n{slices}"
    );
    let mut reducer = Reducer::new("cluster.local");
    let parsed = manifest::parse(&yaml, Format::Yaml, &mut reducer).unwrap();
    assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    let objects = parsed.objects.into_iter();
    objects
        .map(|parsed| Change::Upsert(parsed.object))
        .collect()
}

#[test]
fn the_kernel_knows_the_endpoints_of_this_node_and_how_many_there_are() {
    let vip = || "10.96.0.1:80".to_owned();
    let all: &[_] = &[("a", 1), ("b", 2), ("a", 3)];
    for (spec, endpoints, expected) in [
        ("", all, vec![(vip(), 3, vec![1, 3])]),
        (
            ", internalTrafficPolicy: Local",
            all,
            vec![(vip(), 2, vec![1, 3])],
        ),
        (
            ", trafficDistribution: PreferSameNode",
            all,
            vec![(vip(), 2, vec![1, 3])],
        ),
        ("", &all[1..2], vec![]),
        (", internalTrafficPolicy: Local", &all[1..2], vec![]),
    ] {
        let store = Store::default();
        let mut updates = store.subscribe();
        let (mut maps, mut balancer) = (SmallMaps::new(9), Balancer::new("a".into()));
        store.apply(service(spec, endpoints));
        balancer
            .publish(&mut maps, &updates.try_recv().unwrap())
            .unwrap();
        assert_eq!(maps.shown(), expected, "{spec} {endpoints:?}");

        // One that starts afresh on these maps finds nothing to do.
        let writes = maps.writes;
        let mut afresh = Balancer::new("a".into());
        afresh.publish_all(&mut maps, &store.snapshot()).unwrap();
        assert_eq!((maps.shown(), maps.writes), (expected, writes), "{spec}");
    }
}

#[test]
fn what_changes_is_carried_over_and_what_is_gone_is_taken_out() {
    let store = Store::default();
    let mut updates = store.subscribe();
    let (mut maps, mut balancer) = (SmallMaps::new(9), Balancer::new("a".into()));
    for endpoints in [
        &[("a", 1)][..],
        &[("a", 1), ("a", 2)],
        &[("a", 1), ("b", 2)],
    ] {
        store.apply(service("", endpoints));
        balancer
            .publish(&mut maps, &updates.try_recv().unwrap())
            .unwrap();
        let here = endpoints.iter().filter(|(node, _)| *node == "a");
        let here = here.map(|(_, port)| *port).collect();
        let total = u32::try_from(endpoints.len()).unwrap();
        assert_eq!(maps.shown(), [("10.96.0.1:80".to_owned(), total, here)]);
    }
    // An agent that starts after the Service has gone.
    Balancer::new("a".into())
        .publish_all(&mut maps, &Store::default().snapshot())
        .unwrap();
    assert_eq!(maps.shown(), []);
}

#[test]
fn a_service_for_which_there_is_no_room_is_left_to_the_agent_until_there_is() {
    let store = Store::default();
    let mut updates = store.subscribe();
    let (mut maps, mut balancer) = (SmallMaps::new(1), Balancer::new("a".into()));
    for (endpoints, known) in [
        (&[("a", 1)][..], 1),
        (&[("a", 1), ("a", 2)], 0),
        (&[("a", 1), ("b", 2)], 1),
    ] {
        store.apply(service("", endpoints));
        balancer
            .publish(&mut maps, &updates.try_recv().unwrap())
            .unwrap();
        assert_eq!(maps.shown().len(), known, "{endpoints:?}");
    }
}
