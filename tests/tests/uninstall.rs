//! Uninstalling leaves nothing of the mesh on a node, and its pods as they were before.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{collections::BTreeSet, fs, time::Duration};

use ambit_common::name;
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use lab::{
    Family, Lab, Mesh, Pod, PodNetwork, PodSpec, Result, eventually,
    soak::{NETWORK_STATE, network_state},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Ids of the programs and maps that a process holds.
fn held(pid: u32) -> [BTreeSet<u32>; 2] {
    let mut ids = [BTreeSet::new(), BTreeSet::new()];
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for line in text.lines() {
            for (ids, name) in ids.iter_mut().zip(["prog_id:", "map_id:"]) {
                ids.extend(
                    line.strip_prefix(name)
                        .and_then(|id| id.trim().parse::<u32>().ok()),
                );
            }
        }
    }
    ids
}

/// Those of the programs, maps and links that the kernel still has.
fn left(programs: &BTreeSet<u32>, maps: &BTreeSet<u32>) -> [usize; 3] {
    let programs_left = loaded_programs().filter_map(|program| Some(program.ok()?.id()));
    let maps_left = loaded_maps().filter_map(|map| Some(map.ok()?.id()));
    let links_left = loaded_links().filter_map(|link| Some(link.ok()?.program_id()));
    [
        programs_left.filter(|id| programs.contains(id)).count(),
        maps_left.filter(|id| maps.contains(id)).count(),
        links_left.filter(|id| programs.contains(id)).count(),
    ]
}

fn plaintext_passes(lab: &Lab, client: &Pod, server: &Pod) -> Result<bool> {
    let wire = lab.wire_capture()?;
    assert_eq!(client.call(server.at(8080))?, "echoed");
    Ok(wire.stop()?.iter().any(|packet| packet.has_port(8080)))
}

#[test]
fn nothing_is_left_on_a_node_and_its_pods_talk_as_before() -> Result<()> {
    for (attach, network) in [
        ("tcx", PodNetwork::Routed),
        ("tcx", PodNetwork::Bridged),
        ("clsact", PodNetwork::Routed),
        ("clsact", PodNetwork::Bridged),
    ] {
        eprintln!("{attach} {network:?}");
        let lab = Lab::builder("uninstall")
            .pods(network)
            .family(Family::Dual)
            .build()?;
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let shop = || PodSpec::in_namespace("shop");
        let client = lab.node("a").pod("client", shop())?;
        let outside = lab
            .node("a")
            .pod("outside", PodSpec::in_namespace("street"))?;
        let near = lab.node("a").pod("near", shop())?;
        let far = lab.node("b").pod("far", shop())?;
        let echo = ["echo-server", "--dual-stack", "--listen", "[::]:8080"];
        let _listening = [near.peer_server(echo)?, far.peer_server(echo)?];
        // Somebody else's qdisc and filter stay.
        let guest = far.host_interface();
        let filter = format!(
            "tc qdisc add dev {guest} clsact && tc filter add dev {guest} ingress bpf bytecode '1,6 0 0 0'"
        );
        lab.node("b").run("sh", ["-c", &filter])?.success()?;
        assert!(plaintext_passes(&lab, &client, &far)?);
        let before = [network_state(lab.node("a"))?, network_state(lab.node("b"))?];

        let mut mesh = Mesh::default()
            .agent_arguments(&["--attach", attach])
            .start(&lab)?;
        let (mut programs, mut maps) = (BTreeSet::new(), BTreeSet::new());
        for node in ["a", "b"] {
            let [of_programs, of_maps] = held(mesh.agent(node).pid());
            programs.extend(of_programs);
            maps.extend(of_maps);
        }
        assert!(!plaintext_passes(&lab, &client, &far)?);
        for (from, server) in [(&client, &near), (&outside, &near), (&outside, &far)] {
            for at in server.all_at(8080) {
                assert_eq!(from.call(at)?, "echoed");
            }
        }
        // Everything that is looked at below is there now.
        let during = network_state(lab.node("a"))?;
        let changed: Vec<usize> = (0..NETWORK_STATE.len())
            .filter(|&index| during[index] != before[0][index])
            .collect();
        let expected = if attach == "tcx" {
            vec![0, 1, 2, 3, 4, 8]
        } else {
            (0..7).chain([8]).collect()
        };
        assert_eq!(changed, expected, "{during:?}");
        let there = left(&programs, &maps);
        // Two nodes with three programs and ten maps each, a link for each program of their cgroup and that
        // of socket look-ups, and one a hook.
        let without_hooks = 2 * (name::BALANCERS.len() + 2);
        assert!(there[0] >= 6 && there[1] >= 20, "{there:?}");
        assert_eq!(there[2] >= without_hooks + 6, attach == "tcx", "{there:?}");

        mesh.uninstall()?;
        for (node, before) in lab.nodes().iter().zip(&before) {
            assert_eq!(network_state(node)?, *before, "{attach} {}", node.name());
        }
        // The kernel takes its time with what nobody holds any more.
        eventually("programs, maps and links gone", DEADLINE, || {
            left(&programs, &maps) == [0; 3]
        });
        assert!(plaintext_passes(&lab, &client, &far)?);
        assert_eq!(client.call(near.at(8080))?, "echoed");
    }
    Ok(())
}
