//! `ambit services`.

use anyhow::Result;

use super::{
    operator::AskOf,
    table::{self, Table},
};
use crate::admin::ServiceView;

/// Endpoints that a line names; the others are counted.
const NAMED: usize = 3;

pub(super) async fn run(AskOf { ask, of }: AskOf) -> Result<()> {
    let mut services: Vec<ServiceView> = ask.agent().ask("services").await?;
    services.retain(|service| of.selects(&service.name));
    services.sort_by(|a, b| table::compare_names(&a.name, &b.name));
    ask.show_list(&services, table, || {
        format!("the agent knows no services{}", of.words())
    })
}

fn table(services: &[ServiceView]) -> Table<6> {
    let headers = [
        "NAMESPACE",
        "NAME",
        "ADDRESS",
        "PORTS",
        "WAYPOINT",
        "ENDPOINTS",
    ];
    let row = |service: &ServiceView| {
        let (namespace, name) = table::split_name(&service.name);
        [
            namespace.to_owned(),
            name.to_owned(),
            table::list(&service.vips),
            table::list(&service.ports),
            table::known(&service.waypoint),
            endpoints(service),
        ]
    };
    Table::new(headers, services.iter().map(row))
}

fn endpoints(service: &ServiceView) -> String {
    let named = service.endpoints.iter().take(NAMED);
    let named = table::list(named.map(|endpoint| endpoint.address));
    match service.endpoints.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::EndpointView;

    fn service(name: &str, vips: &[&str], ports: &[u16], endpoints: u16) -> ServiceView {
        ServiceView {
            name: name.into(),
            vips: vips.iter().map(|text| text.parse().unwrap()).collect(),
            ports: ports.to_vec(),
            endpoints: (1..=endpoints)
                .map(|port| EndpointView {
                    address: ([10, 1, 0, 1], port).into(),
                    port_name: "http".into(),
                    node: None,
                })
                .collect(),
            waypoint: (endpoints == 3).then(|| "shop/w".into()),
        }
    }

    #[test]
    fn a_service_is_shown_with_some_of_its_endpoints() {
        let services = [
            service("shop/none", &[], &[], 0),
            service("shop/three", &["10.96.0.1"], &[80], 3),
            service("shop/more", &["10.96.0.2", "fd00::2"], &[80, 443], 5),
        ];
        let expected = "\
NAMESPACE   NAME    ADDRESS             PORTS    WAYPOINT   ENDPOINTS
shop        none    -                   -        -          -
shop        three   10.96.0.1           80       shop/w     10.1.0.1:1,10.1.0.1:2,10.1.0.1:3
shop        more    10.96.0.2,fd00::2   80,443   -          10.1.0.1:1,10.1.0.1:2,10.1.0.1:3 and 2 more
";
        assert_eq!(table(&services).to_string(), expected);
    }
}
