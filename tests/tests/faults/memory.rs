//! An agent that has nearly all of the memory that its cgroup may have.

use crate::shop::{DEADLINE, pod, refused, wrapped};
use lab::{Flood, Harm, Lab, MemoryGroup, Mesh, Result, eventually};

/// What an agent may take beyond what it needs when it is idle.
const MORE: u64 = 64 << 20;
/// Far more connections than that is enough for, at once.
const CONNECTIONS: u16 = 10_000;

#[test]
fn an_agent_short_of_memory_takes_nothing_new_and_is_not_killed() -> Result<()> {
    let lab = Lab::builder("memory").build()?;
    lab.namespace("shop").enrolled()?;
    let (client, far) = (pod(&lab, "a", "client")?, pod(&lab, "b", "far")?);
    let greedy = pod(&lab, "a", "greedy")?;
    let _served = far.echo(80)?;
    let group = MemoryGroup::new("ambit-agent")?;
    let script = format!(
        "[ \"$1 $3\" = 'node a' ] && echo $$ > {}\nexec ambit \"$@\"",
        group.processes().display()
    );
    let mut mesh = Mesh::default()
        .program(&wrapped(&lab, &script)?)
        .start(&lab)?;
    let mut open = client.hold(far.at(80))?;
    open.echo().unwrap();
    group.allow_more(MORE)?;

    let flood = Flood::start(
        &greedy,
        Harm::Silent,
        &[far.at(80)],
        CONNECTIONS,
        2 * u32::from(CONNECTIONS),
    )?;
    let node = lab.node("a");
    eventually(
        "connections to be refused for want of memory",
        DEADLINE,
        || refused(node, "memory", "unknown") > 0.0,
    );
    open.echo().unwrap();
    assert!(mesh.agent("a").is_running());
    drop(flood);
    eventually("connections to be carried again", DEADLINE, || {
        client.call(far.at(80)).is_ok_and(|told| told == "echoed")
    });
    open.echo().unwrap();
    assert!(mesh.agent("a").is_running(), "{}", mesh.agent("a").stderr());
    Ok(())
}
