//! `ambit workloads`.

use anyhow::Result;
use clap::Args;

use super::{
    operator::AskOf,
    table::{self, Table},
};
use crate::admin::WorkloadView;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    ask: AskOf,
    /// Only those of this node. Default: all.
    #[arg(long)]
    node: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { ask, node } = arguments;
    let AskOf { ask, of } = ask;
    let mut workloads: Vec<WorkloadView> = ask.agent().ask("workloads").await?;
    let is_on = |workload: &WorkloadView| node.as_ref().is_none_or(|node| *node == workload.node);
    workloads.retain(|workload| of.selects(&workload.name) && is_on(workload));
    sort(&mut workloads);
    ask.show_list(&workloads, table, || {
        let on: String = node.iter().map(|node| format!(" on node {node}")).collect();
        format!("the agent knows no workloads{}{on}", of.words())
    })
}

fn sort(workloads: &mut [WorkloadView]) {
    workloads.sort_by(|a, b| table::compare_names(&a.name, &b.name));
}

fn table(workloads: &[WorkloadView]) -> Table<8> {
    let headers = [
        "NAMESPACE",
        "NAME",
        "ADDRESS",
        "NODE",
        "ENROLMENT",
        "READY",
        "WAYPOINT",
        "IDENTITY",
    ];
    let row = |workload: &WorkloadView| {
        let (namespace, name) = table::split_name(&workload.name);
        [
            namespace.to_owned(),
            name.to_owned(),
            table::list(&workload.addresses),
            table::or_nothing(&workload.node),
            workload.enrolment.clone(),
            table::yes_or_no(workload.ready),
            table::known(&workload.waypoint),
            table::identity(&workload.identity),
        ]
    };
    Table::new(headers, workloads.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, node: &str, addresses: &[&str], ready: bool) -> WorkloadView {
        WorkloadView {
            name: name.into(),
            uid: "1".into(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            node: node.into(),
            identity: "spiffe://cluster.local/ns/shop/sa/till".into(),
            enrolment: if ready { "enrolled" } else { "not labelled" }.into(),
            tunnel: "node agent".into(),
            ready,
            waypoint: (node == "a").then(|| "shop/w".into()),
        }
    }

    #[test]
    fn workloads_are_shown_by_namespace_and_name() {
        let mut workloads = [
            workload("shop-2/a", "", &[], false),
            workload("shop/web", "b", &["10.1.0.2", "fd00::2"], true),
            workload("shop/till", "a", &["10.1.0.1"], true),
        ];
        sort(&mut workloads);
        let expected = "\
NAMESPACE   NAME   ADDRESS            NODE   ENROLMENT      READY   WAYPOINT   IDENTITY
shop        till   10.1.0.1           a      enrolled       yes     shop/w     cluster.local/ns/shop/sa/till
shop        web    10.1.0.2,fd00::2   b      enrolled       yes     -          cluster.local/ns/shop/sa/till
shop-2      a      -                  -      not labelled   no      -          cluster.local/ns/shop/sa/till
";
        assert_eq!(table(&workloads).to_string(), expected);
    }
}
