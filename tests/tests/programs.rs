//! Real servers and clients go on as ever when their bytes go past TCP, on one node and between two.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{Child, Lab, Mesh, Node, Pod, Result, Trio, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of a file that nginx sends by sendfile.
const FILE: usize = 20_000_000;

/// Runs a client against both servers, twice: on its own node, the agent carries the first.
fn ask(pods: &Trio, arguments: impl Fn(&Pod) -> Vec<String>, check: impl Fn(&str)) -> Result<()> {
    for server in pods.servers() {
        for _ in 0..2 {
            let arguments = arguments(server);
            let command = pods.client.command(&arguments[0]).args(&arguments[1..]);
            check(&command.deadline(DEADLINE).run()?.success()?);
        }
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn directory(lab: &Lab, pod: &Pod) -> PathBuf {
    let directory = lab.directory().join(pod.name());
    fs::create_dir(&directory).unwrap();
    directory
}

fn redirected(node: &Node) -> f64 {
    let event = [("event", "redirected")];
    node.metric("ambit_splice_events_total", &event).unwrap()
}

/// Both nodes' programs had bytes go past TCP meanwhile.
fn past_tcp(lab: &Lab, story: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = [lab.node("a"), lab.node("b")].map(redirected);
    story()?;
    for (node, before) in lab.nodes().iter().zip(before) {
        assert!(redirected(node) > before, "{}", node.name());
    }
    Ok(())
}

/// Once the port answers, in the pod itself.
fn listening(pod: &Pod, port: u16, child: &mut Child) {
    eventually("the server to listen", DEADLINE, || {
        assert!(child.is_running(), "{}", child.stderr());
        let sockets = pod.run("ss", ["-Hltn"]).unwrap().success().unwrap();
        sockets.contains(&format!(":{port} "))
    });
}

#[test]
fn nginx_serves_many_requests_large_files_and_http2() -> Result<()> {
    let lab = Lab::builder("nginx").build()?;
    let pods = Trio::start(&lab)?;
    let _servers = pods.servers().map(|pod| nginx(&lab, pod));
    let _mesh = Mesh::default().start(&lab)?;
    past_tcp(&lab, || {
        ask(
            &pods,
            |server| words(&format!("wrk -t1 -c8 -d1 http://{}/word", server.at(8080))),
            |told| {
                assert!(
                    !told.contains("Non-2xx") && !told.contains("Socket"),
                    "{told}"
                )
            },
        )
    })?;
    ask(
        &pods,
        |server| words(&format!("curl -sS http://{}/file", server.at(8080))),
        |file| {
            assert_eq!(file.len(), FILE);
            let line = file.lines().last().unwrap();
            assert_eq!(line.trim().parse(), Ok(FILE / 10 - 1));
        },
    )?;
    let http2 = |server: &Pod| format!("h2load -n 2000 -c 4 -m 10 http://{}/word", server.at(8082));
    ask(
        &pods,
        |server| words(&http2(server)),
        |told| assert!(told.contains("2000 succeeded, 0 failed"), "{told}"),
    )
}

fn nginx(lab: &Lab, pod: &Pod) -> Child {
    let directory = directory(lab, pod);
    // The directory of a lab is root's alone, and a worker isn't root.
    let user = "user root;";
    let file: String = (0..FILE / 10).map(|line| format!("{line:9}\n")).collect();
    fs::write(directory.join("file"), file).unwrap();
    let text = format!(
        "daemon off;\n{user}\npid {directory}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000;\n  \
         server {{\n    listen 8080;\n    listen 8082 http2;\n    \
         root {directory};\n    location /word {{ return 200 word; }}\n  }}\n}}\n",
        directory = directory.display(),
    );
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, text).unwrap();
    let command = pod.command("nginx").args(["-e", "stderr", "-c"]);
    let mut child = command.arg(&configuration).spawn().unwrap();
    listening(pod, 8080, &mut child);
    child
}

#[test]
fn redis_answers_pipelines() -> Result<()> {
    let lab = Lab::builder("redis").build()?;
    let pods = Trio::start(&lab)?;
    let _servers = pods.servers().map(|pod| {
        let arguments = "--port 6379 --bind 0.0.0.0 --protected-mode no --save --appendonly no";
        let mut child = pod.spawn("redis-server", words(arguments)).unwrap();
        listening(pod, 6379, &mut child);
        child
    });
    let _mesh = Mesh::default().start(&lab)?;
    let benchmark = |server: &Pod| {
        let arguments = "-p 6379 -n 5000 -c 10 -P 16 -d 1000 -t set,get,lrange_100 -q";
        words(&format!(
            "redis-benchmark -h {} {arguments}",
            server.address()
        ))
    };
    past_tcp(&lab, || {
        ask(&pods, benchmark, |told| {
            assert_eq!(told.matches("requests per second").count(), 4, "{told}");
            assert!(!told.contains("rror"), "{told}");
        })
    })
}

#[test]
fn iperf3_receives_no_more_than_it_sent() -> Result<()> {
    const BYTES: u64 = 200_000_000;
    let lab = Lab::builder("iperf").build()?;
    let pods = Trio::start(&lab)?;
    let _servers = pods.servers().map(|pod| {
        let mut child = pod.spawn("iperf3", ["--server"]).unwrap();
        listening(pod, 5201, &mut child);
        child
    });
    let _mesh = Mesh::default().start(&lab)?;
    for streams in [1, 4] {
        let load = |server: &Pod| {
            let arguments = format!("-n {BYTES} -P {streams} --json");
            words(&format!("iperf3 -c {} {arguments}", server.address()))
        };
        ask(&pods, load, |told| {
            let told: serde_json::Value = serde_json::from_str(told).unwrap();
            let bytes = |end: &str| told["end"][end]["bytes"].as_u64().unwrap();
            let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
            // Its server leaves unread what comes after the client has said that it's enough.
            let in_order = sent >= BYTES && (1..=sent).contains(&received);
            assert!(in_order, "{sent} {received}");
        })?;
    }
    Ok(())
}

#[test]
fn postgresql_passes_its_own_benchmark() -> Result<()> {
    let lab = Lab::builder("postgres").build()?;
    let pods = Trio::start(&lab)?;
    let _servers = pods.servers().map(|pod| postgres(&lab, pod));
    let _mesh = Mesh::default().start(&lab)?;
    past_tcp(&lab, || {
        let bench = |server: &Pod, rest: &str| {
            let address = server.address();
            words(&format!("pgbench -h {address} -U postgres {rest} postgres"))
        };
        ask(&pods, |server| bench(server, "-i -s 1 -q"), |_| ())?;
        ask(
            &pods,
            |server| bench(server, "-c 4 -j 2 -t 100 -M prepared"),
            |told| {
                assert!(told.contains("400/400"), "{told}");
                assert!(told.contains("failed transactions: 0 "), "{told}");
            },
        )
    })
}

/// PostgreSQL refuses to be root.
fn postgres(lab: &Lab, pod: &Pod) -> Child {
    let directory = directory(lab, pod);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let bin = postgres_programs();
    let data = directory.join("data").display().to_string();
    let as_postgres = |program: &str| {
        pod.command("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(bin.join(program))
            .args(["-D", &data])
    };
    let made = as_postgres("initdb").args(["-U", "postgres", "-A", "trust", "-N"]);
    made.deadline(DEADLINE).run().unwrap().success().unwrap();
    let everybody = "host all all 0.0.0.0/0 trust\n";
    fs::write(Path::new(&data).join("pg_hba.conf"), everybody).unwrap();
    let mut child = as_postgres("postgres")
        .args(["-h", "0.0.0.0", "-k", "", "-c", "fsync=off"])
        .spawn()
        .unwrap();
    listening(pod, 5432, &mut child);
    child
}

/// Debian has them by version, away from PATH.
fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut found = versions.map(|version| version.unwrap().path().join("bin"));
    found.find(|bin| bin.join("initdb").is_file()).unwrap()
}
