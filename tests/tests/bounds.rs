//! What an agent may take when it has nothing to do.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{fs, time::Duration};

use lab::{Lab, Mesh, PodSpec, Result, eventually, process_status};

const DEADLINE: Duration = Duration::from_secs(30);
/// Workloads that the agent knows.
const WORKLOADS: u32 = 100;
/// Resident memory in KiB, for a release build. The program's own pages are in it, which the
/// kernel maps by and by and drops when it likes; a debug build has several times as many.
const MEMORY: u64 = 30 * 1024;
/// Of that, what the agent allocated, for every build: jemalloc's caches of each thread are 2 MiB of it.
const OWN_MEMORY: u64 = 9 * 1024;
/// How long an agent is watched.
const WATCHED: Duration = Duration::from_secs(4);
/// Processor time in that, in ticks of 10 ms: half a percent of one processor.
const TICKS: u64 = 2;
/// How often its threads may be woken in that.
const SWITCHES: u64 = 100;

/// Pods of other nodes, as manifests only, each with an identity of its own.
fn fleet() -> String {
    let pod = |number: u32| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number}, namespace: shop, uid: uid-{number}, labels: {{app: app-{number}}}}}\n\
             spec: {{nodeName: elsewhere-{}, serviceAccountName: account-{number}, containers: [{{name: main, image: lab}}]}}\n\
             status: {{phase: Running, hostIP: 10.99.0.{}, podIP: 10.88.{}.{}, podIPs: [{{ip: 10.88.{}.{}}}]}}\n---\n",
            number % 10,
            number % 10 + 1,
            number / 50,
            number % 50 + 2,
            number / 50,
            number % 50 + 2,
        )
    };
    (0..WORKLOADS).map(pod).collect()
}

/// User and system time of a process, in ticks.
fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    // Fields 14 and 15 of proc_pid_stat(5), of which the two before the parenthesis are cut off.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often threads gave up the processor by themselves, which is how often they were woken.
fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |id: u32| process_status(id, "voluntary_ctxt_switches").unwrap();
    threads
        .map(|thread| {
            of(thread
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap())
        })
        .sum()
}

#[test]
fn an_idle_agent_is_small_and_asleep() -> Result<()> {
    let lab = Lab::builder("bounds").build()?;
    lab.namespace("shop").enrolled()?;
    lab.apply("fleet.yaml", &fleet())?;
    let client = lab.node("a").pod("client", PodSpec::in_namespace("shop"))?;
    let server = lab.node("b").pod("server", PodSpec::in_namespace("shop"))?;
    let _echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let mut mesh = Mesh::default().start(&lab)?;
    assert_eq!(client.call(server.at(8080))?, "echoed");
    for name in ["a", "b"] {
        let node = lab.node(name);
        let known = node.admin("/workloads")?.as_array().unwrap().len();
        assert_eq!(known, 102);
        let certified = || node.admin("/certificates").unwrap()[0]["serial"].is_string();
        eventually("a certificate", DEADLINE, certified);
        let pid = mesh.agent(name).pid();
        let kinds =
            ["VmRSS", "RssAnon", "RssFile"].map(|field| process_status(pid, field).unwrap());
        eprintln!("{name}: KiB resident, anonymous, of files: {kinds:?}");
        assert!(kinds[1] <= OWN_MEMORY, "{kinds:?} KiB");
        assert!(
            cfg!(debug_assertions) || kinds[0] <= MEMORY,
            "{kinds:?} KiB"
        );
    }
    let pids = ["a", "b"].map(|name| mesh.agent(name).pid());
    let before = pids.map(|pid| (ticks(pid), switches(pid)));
    // There is no event that says that nothing happened.
    std::thread::sleep(WATCHED);
    for (pid, (ticks_before, switches_before)) in pids.into_iter().zip(before) {
        let (took, woken) = (ticks(pid) - ticks_before, switches(pid) - switches_before);
        eprintln!("{took} ticks, woken {woken} times");
        assert!(
            took <= TICKS && woken <= SWITCHES,
            "{took} ticks, woken {woken} times"
        );
    }
    Ok(())
}
