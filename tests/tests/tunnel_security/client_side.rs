//! An agent that opens a tunnel: what stands in the place of the other agent is found out.

use std::time::Duration;

use lab::{Lab, Mesh, PodSpec, Result};

use crate::{
    credentials::{Forger, Life, account},
    hbone::FakeAgent,
};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn an_agent_finds_out_who_stands_in_for_another_and_resets_the_client() -> Result<()> {
    let lab = Lab::builder("impostor").build()?;
    lab.namespace("shop").enrolled()?;
    let pod = |node, name| {
        let spec = PodSpec::in_namespace("shop").service_account(name);
        lab.node(node).pod(name, spec)
    };
    let (buyer, till) = (pod("a", "buyer")?, pod("b", "till")?);
    let mut mesh = Mesh::default().start(&lab)?;
    let state = mesh.state_directory().to_owned();
    let own = lab.directory().join("thief");
    let thief = Forger::with_root_of(&state, &own, "cluster.local");
    let foreign = Forger::foreign(&lab.directory().join("foreign"));

    mesh.kill_agent("b");
    let at = till.at(80).to_string();
    let (buyers, tills) = (account("buyer"), account("till"));
    let table = [
        (
            "another identity",
            thief.certificate(&account("thief"), Life::Valid, &thief),
            format!(
                "the peer is {}, where {tills} was expected",
                account("thief")
            ),
        ),
        (
            "an expired certificate",
            thief.certificate(&tills, Life::Expired, &thief),
            "the peer's certificate has expired".to_owned(),
        ),
        (
            "a foreign root",
            foreign.certificate(&tills, Life::Valid, &thief),
            "signed by no root that this mesh trusts".to_owned(),
        ),
    ];
    for (shown, certificate, cause) in table {
        let _impostor = FakeAgent::start(lab.node("b"), &certificate)?;
        let told = buyer.peer(["observe-client", "--connect", &at])?;
        assert_eq!(told["end"], "reset", "{shown}: {told}");
        // One line says who wanted to reach whom, and why that failed.
        mesh.agent("a").await_stderr(DEADLINE, |line| {
            [&cause, &buyers.to_string(), &tills.to_string()]
                .iter()
                .all(|part| line.contains(*part))
        })?;
    }

    // Nobody at all.
    let told = buyer.peer(["observe-client", "--connect", &at])?;
    assert_eq!(told["end"], "reset", "{told}");
    mesh.agent("a")
        .await_stderr(DEADLINE, |line| line.contains("no agent runs there"))?;

    // The agent itself again: all is well without further ado.
    mesh.start_agent(lab.node("b"))?;
    let _echo = till.peer_server(["echo-server", "--listen", "0.0.0.0:80"])?;
    let told = buyer.peer(["echo-client", "--connect", &at])?;
    assert_eq!(told["succeeded"], 1, "{told}");
    Ok(())
}
