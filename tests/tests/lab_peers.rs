//! What `lab-peer` reports where there is no mesh: the behaviour that a mesh has to keep.

use std::time::Duration;

use lab::{Lab, PodSpec, Result};

const DEADLINE: Duration = Duration::from_secs(20);

fn shop() -> PodSpec {
    PodSpec::in_namespace("shop")
}

#[test]
fn peers_report_resets_half_closes_hashes_and_idle_ends() -> Result<()> {
    let lab = Lab::builder("peers").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    // Server's and client's arguments, and what each reports.
    let million = "1000000";
    let table: [(&[&str], &[&str], [&str; 2]); 5] = [
        (
            &["reset-server"],
            &["observe-client"],
            ["reset by this side", "reset"],
        ),
        (
            &["echo-server"],
            &["reset-client"],
            ["reset", "reset by this side"],
        ),
        (
            &["half-close-server"],
            &["half-close-client"],
            ["eof", "eof"],
        ),
        (
            &["half-close-server", "--first", "server"],
            &["half-close-client", "--first", "server"],
            ["eof", "eof"],
        ),
        (
            &["transfer-server", "--bytes", million],
            &["transfer-client", "--bytes", million],
            ["eof", "eof"],
        ),
    ];
    for (port, (serve, call, ends)) in (7000..).zip(table) {
        let listen = format!("0.0.0.0:{port}");
        let mut peer = server.peer_server(serve.iter().chain(&["--listen", &listen]))?;
        let at = server.at(port).to_string();
        let told = client.peer(call.iter().chain(&["--connect", &at]))?;
        let reports = peer.await_reports(1, DEADLINE)?;
        assert_eq!(
            [&reports[0]["end"], &told["end"]],
            ends,
            "{serve:?} {reports:?} {told}"
        );
        if told["sent_sha256"].is_string() {
            assert_eq!(told["sent_sha256"], reports[0]["received_sha256"]);
            assert_eq!(told["received_sha256"], reports[0]["sent_sha256"]);
            assert_ne!(
                told["sent_sha256"], told["received_sha256"],
                "two directions"
            );
        }
    }

    let echo = server.peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let at = server.at(8080).to_string();
    let mut idle = client.spawn_peer(["idle-client", "--connections", "50", "--connect", &at])?;
    assert_eq!(idle.await_json("open", DEADLINE)?["open"], 50);
    drop(echo);
    let ends = idle.await_json("ends", DEADLINE)?;
    assert_eq!(ends["ends"].as_array().unwrap().len(), 50);
    let told = client.peer(["observe-client", "--connect", &at])?;
    assert_eq!(
        (&told["connected"], &told["end"]),
        (&false.into(), &"refused".into())
    );
    Ok(())
}

#[test]
fn a_slow_reader_gets_every_byte() -> Result<()> {
    let lab = Lab::builder("slow").build()?;
    let client = lab.node("a").pod("client", shop())?;
    let server = lab.node("b").pod("server", shop())?;
    let mut sink =
        server.peer_server(["sink-server", "--listen", "0.0.0.0:80", "--pause-ms", "500"])?;
    let at = server.at(80).to_string();
    let told = client.peer(["transfer-client", "--connect", &at, "--bytes", "30000000"])?;
    let report = &sink.await_reports(1, DEADLINE)?[0];
    assert_eq!(report["received_bytes"], 30_000_000);
    assert_eq!(report["received_sha256"], told["sent_sha256"]);
    Ok(())
}
