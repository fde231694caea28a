//! Services behind a waypoint whose servers tell what they see, and clients of every protocol.

use lab::{Lab, Mesh, PeerServer, Pod, Result, RunningMesh, Service, eventually};
use serde_json::Value;

use crate::shop::{DEADLINE, await_ready, gateway, in_front, pod, use_waypoint};

/// Clients on node a, with server `one` beside them; server `two` on node b, where the waypoint is.
/// Service `front` has both, `front-one` and `front-two` have one each.
pub(crate) struct Stage {
    pub(crate) friend: Pod,
    pub(crate) stranger: Pod,
    pub(crate) pods: [Pod; 2],
    /// Of HTTP, on port 80 of each service.
    pub(crate) servers: [PeerServer; 2],
    services: [Service; 3],
}

/// Services of a stage.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    Both,
    One,
    Two,
}

/// Ports of all services: name, port, and the servers' port.
const PORTS: [(&str, u16, u16); 4] = [
    ("http", 80, 8080),
    ("grpc", 81, 8081),
    ("http-chat", 82, 8082),
    ("undeclared", 83, 8083),
];

impl Stage {
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.announce_nodes()?;
        let pod = |node, account| pod(lab, node, account);
        let pods = [pod("a", "one")?, pod("b", "two")?];
        let service = |name: &str, pods: &[&Pod]| {
            let service = PORTS.iter().fold(lab.service("shop", name), |service, it| {
                service.named_port(it.0, it.1, it.2)
            });
            in_front(service, pods)
        };
        let [one, two] = &pods;
        let services = [
            service("front", &[one, two])?,
            service("front-one", &[one])?,
            service("front-two", &[two])?,
        ];
        let http = |pod: &Pod| serve(pod, "http-server", 8080, &["--name", pod.name()]);
        Ok(Self {
            friend: pod("a", "friend")?,
            stranger: pod("a", "stranger")?,
            servers: [http(one)?, http(two)?],
            services,
            pods,
        })
    }

    /// A server of another protocol in either pod.
    pub(crate) fn serve(&self, mode: &str, port: u16, more: &[&str]) -> Result<[PeerServer; 2]> {
        let [one, two] = &self.pods;
        Ok([serve(one, mode, port, more)?, serve(two, mode, port, more)?])
    }

    /// With a waypoint on node b, which is ready, and has the services already.
    pub(crate) fn mesh<'a>(&self, lab: &'a Lab, arguments: &[&str]) -> Result<RunningMesh<'a>> {
        lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
        use_waypoint(lab, "w")?;
        let mesh = Mesh::default().agent_arguments(arguments).start(lab)?;
        await_ready(lab, "b");
        self.eventually("the services", "/", |answer| {
            answer["body"]["name"].is_string()
        });
        Ok(mesh)
    }

    /// What a client mode of `lab-peer` tells of a service.
    pub(crate) fn call(
        &self,
        (of, port): (Of, u16),
        client: &Pod,
        mode: &str,
        more: &[&str],
    ) -> Result<Value> {
        let at = self.at(of, port);
        let arguments = [mode, "--connect", &at].into_iter();
        client.peer(arguments.chain(more.iter().copied()))
    }

    /// Where a service is.
    pub(crate) fn at(&self, of: Of, port: u16) -> String {
        let [both, one, two] = &self.services;
        let service = match of {
            Of::Both => both,
            Of::One => one,
            Of::Two => two,
        };
        service.at(port).to_string()
    }

    /// What the friend is answered to one request of HTTP to both servers; null if nothing.
    pub(crate) fn ask(&self, path: &str, more: &[&str]) -> Result<Value> {
        self.ask_as(&self.friend, path, more)
    }

    /// As [`Self::ask`], for any client.
    pub(crate) fn ask_as(&self, client: &Pod, path: &str, more: &[&str]) -> Result<Value> {
        let url = format!("--url=http://front{path}");
        let all = [&[url.as_str()], more].concat();
        let mut told = self.call((Of::Both, 80), client, "http-client", &all)?;
        let answer = told.pointer_mut("/responses/0").map(Value::take);
        Ok(answer.unwrap_or_default())
    }

    /// Waits until the friend is answered so.
    pub(crate) fn eventually(&self, what: &str, path: &str, is_it: impl Fn(&Value) -> bool) {
        eventually(what, DEADLINE, || {
            self.ask(path, &[]).is_ok_and(|answer| is_it(&answer))
        });
    }

    /// Which paths the servers have been asked for that begin so, `two`'s last.
    pub(crate) fn seen(&self, prefix: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for server in &self.servers {
            all.extend(server.reports()?);
        }
        all.retain(|it| it["path"].as_str().is_some_and(|it| it.starts_with(prefix)));
        Ok(all)
    }
}

/// Checks what JSON pointers find.
#[track_caller]
pub(crate) fn check(what: &str, told: &Value, expected: &[(&str, Value)]) {
    for (pointer, expected) in expected {
        let found = told.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(found, expected, "{what}: {pointer} of {told}");
    }
}

fn serve(pod: &Pod, mode: &str, port: u16, more: &[&str]) -> Result<PeerServer> {
    let listen = format!("0.0.0.0:{port}");
    let arguments = [mode, "--listen", &listen].into_iter();
    pod.peer_server(arguments.chain(more.iter().copied()))
}
