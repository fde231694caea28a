//! A service of two versions behind a waypoint, and who asks it.

use std::{fs, time::Duration};

use lab::{Child, Lab, Mesh, Pod, Result, RunningMesh, Service, eventually};

use crate::shop::{await_ready, gateway, in_front, pod, use_waypoint};

const DEADLINE: Duration = Duration::from_secs(30);

/// Clients on node a, version 1 beside them, version 2 on node b, where the waypoint is.
pub(crate) struct Store {
    pub(crate) friend: Pod,
    pub(crate) stranger: Pod,
    /// Of version 1 and 2.
    pub(crate) servers: Vec<Child>,
    service: Service,
}

impl Store {
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.announce_nodes()?;
        let pod = |node, account| pod(lab, node, account);
        let versions = [pod("a", "v1")?, pod("b", "v2")?];
        let service = |name: &str, pods: &[&Pod]| {
            in_front(lab.service("shop", name).named_port("web", 80, 8080), pods)
        };
        let [first, second] = &versions;
        let reviews = service("reviews", &[first, second])?;
        service("reviews-v1", &[first])?;
        service("reviews-v2", &[second])?;
        Ok(Self {
            friend: pod("a", "friend")?,
            stranger: pod("a", "stranger")?,
            servers: vec![nginx(lab, first)?, nginx(lab, second)?],
            service: reviews,
        })
    }

    /// With a waypoint on node b, which is ready.
    pub(crate) fn mesh<'a>(&self, lab: &'a Lab) -> Result<RunningMesh<'a>> {
        lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
        use_waypoint(lab, "w")?;
        let mesh = Mesh::default().start(lab)?;
        await_ready(lab, "b");
        Ok(mesh)
    }

    /// What one request is answered.
    pub(crate) fn ask(&self, client: &Pod, path: &str, arguments: &[&str]) -> Result<String> {
        let url = format!("http://{}{path}", self.service.at(80));
        let command = client
            .command("curl")
            .args(["-sS", "-m", "20", "-H", "Host: reviews"]);
        command.args(arguments).arg(url).run()?.success()
    }

    /// What so many requests of the friend are answered, one after the other.
    pub(crate) fn answers(&self, path: &str, arguments: &[&str], times: usize) -> Result<String> {
        let answers = (0..times).map(|_| self.ask(&self.friend, path, arguments));
        answers.collect()
    }

    /// Waits until the friend is answered so.
    pub(crate) fn eventually(&self, what: &str, path: &str, expected: &str) {
        eventually(what, DEADLINE, || {
            let answer = self.ask(&self.friend, path, &[]);
            answer.is_ok_and(|answer| answer.contains(expected))
        });
    }
}

/// An object of the Gateway API in the shop.
pub(crate) fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:{spec}"
    )
}

/// Answers with what it has seen of a request.
fn nginx(lab: &Lab, pod: &Pod) -> Result<Child> {
    let name = pod.name();
    let directory = lab.directory().join(format!("nginx-{name}"));
    fs::create_dir_all(&directory).expect("a directory in the lab's own");
    let text = format!(
        "daemon off;\nuser root;\npid {directory}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000;\n  merge_slashes off;\n  \
         server {{\n    listen 8080;\n    default_type text/plain;\n    \
         location / {{ return 200 \"{name} $request_method $request_uri x=$http_x_test \
         $http_x_forwarded_client_cert\\n\"; }}\n  }}\n}}\n",
        directory = directory.display(),
    );
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, text).expect("a file in the lab's own directory");
    let command = pod.command("nginx").args(["-e", "stderr", "-c"]);
    let child = command.arg(&configuration).spawn()?;
    let url = format!("http://{}/", pod.at(8080));
    eventually("nginx to listen", DEADLINE, || {
        let asked = pod.command("curl").args(["-sS", "-m", "2", &url]).run();
        asked.is_ok_and(|asked| asked.succeeded())
    });
    Ok(child)
}
