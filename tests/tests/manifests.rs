//! Manifests that are wrong: said by file, object and field, and without effect on what serves.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{fs, time::Duration};

use lab::{Lab, Mesh, Pod, PodSpec, Result, RunningMesh, eventually};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);
const FILE: &str = "policy.yaml";

/// A policy that admits one service account, and what of it a test may break.
fn admits(account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: only, namespace: shop}}\n\
         spec: {{rules: [{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/{account}]}}}}]}}]}}\n"
    )
}

struct Story {
    friend: Pod,
    stranger: Pod,
    server: Pod,
}

impl Story {
    fn begin(lab: &Lab) -> Result<Story> {
        lab.namespace("shop").enrolled()?;
        let pod = |account| PodSpec::in_namespace("shop").service_account(account);
        Ok(Story {
            friend: lab.node("a").pod("friend", pod("friend"))?,
            stranger: lab.node("a").pod("stranger", pod("stranger"))?,
            server: lab.node("b").pod("server", pod("server"))?,
        })
    }

    /// How the friend's and the stranger's calls end.
    fn calls(&self) -> Result<[String; 2]> {
        let at = self.server.at(8080);
        Ok([self.friend.call(at)?, self.stranger.call(at)?])
    }
}

fn problems(lab: &Lab) -> Vec<Value> {
    lab.node("b")
        .admin("/problems")
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

/// Waits until both agents say what is wrong: in the log, as a problem, and as a number.
fn told(lab: &Lab, mesh: &mut RunningMesh<'_>, file: &str, words: &[&str]) -> Result<()> {
    let says = |line: &str| words.iter().all(|word| line.contains(word));
    for node in ["a", "b"] {
        let line = mesh.agent(node).await_stderr(DEADLINE, |line| {
            line.contains("ERROR") && line.contains(file) && says(line)
        })?;
        assert!(line.contains("file="), "{line}");
    }
    eventually(&format!("a problem that says {words:?}"), DEADLINE, || {
        problems(lab).iter().any(|problem| {
            let message = problem["message"].as_str().unwrap();
            problem["source"].as_str().unwrap().ends_with(file) && says(message)
        })
    });
    assert!(lab.node("b").metric("ambit_manifest_problems", &[])? >= 1.0);
    Ok(())
}

fn put_right(lab: &Lab) {
    eventually("no problem", DEADLINE, || {
        problems(lab).is_empty()
            && lab
                .node("b")
                .metric("ambit_manifest_problems", &[])
                .unwrap()
                < 0.5
    });
}

#[test]
fn what_is_wrong_is_told_and_the_last_good_state_serves() -> Result<()> {
    let lab = Lab::builder("wrong").build()?;
    let story = Story::begin(&lab)?;
    let _echo = story
        .server
        .peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let mut mesh = Mesh::default().start(&lab)?;
    let policy = "AuthorizationPolicy shop/only";
    let good = admits("friend");
    // A broken policy.yaml or another file, and what must be said of it.
    let table: [(&str, String, &[&str]); 8] = [
        (FILE, "spec: [unclosed".into(), &["not a manifest", "line"]),
        (FILE, "kind: AuthorizationPolicy\nmetadata: {name: only}".into(), &["object 1", "apiVersion"]),
        (FILE, good.replace("principals", "principal"), &[policy, "spec.rules[0].from[0].source", "principal"]),
        (FILE, good.replace("rules: [", "action: PERMIT, rules: ["), &[policy, "spec.action", "PERMIT"]),
        (FILE, good.replace("from: [", "to: [{operation: {ports: ['80x']}}], from: ["), &[policy, "spec.rules[0].to[0].operation.ports[0]", "80x"]),
        (FILE, good.replace("istio.io/v1", "istio.io/v9"), &[policy, "security.istio.io/v9"]),
        ("again.yaml", admits("stranger"), &[policy, FILE, "already defined"]),
        (
            "namespace-shop.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {ambit.dev/mesh: perhaps}}\n".into(),
            &["Namespace shop", "ambit.dev/mesh", "perhaps"],
        ),
    ];
    for (file, broken, words) in table {
        eprintln!("{words:?}");
        // A good file serves, then a bad one takes its place.
        mesh.apply(FILE, &good)?;
        lab.namespace("shop").enrolled()?;
        lab.remove("again.yaml")?;
        put_right(&lab);
        assert_eq!(story.calls()?, ["echoed", "reset"]);
        lab.apply(file, &broken)?;
        told(&lab, &mut mesh, file, words)?;
        assert_eq!(story.calls()?, ["echoed", "reset"]);

        // Repaired, and different, it serves without a restart.
        lab.namespace("shop").enrolled()?;
        lab.remove("again.yaml")?;
        mesh.apply(FILE, &admits("stranger"))?;
        put_right(&lab);
        assert_eq!(story.calls()?, ["reset", "echoed"]);
    }
    Ok(())
}

#[test]
fn one_broken_object_of_a_file_leaves_the_others_to_change() -> Result<()> {
    let lab = Lab::builder("single").build()?;
    let story = Story::begin(&lab)?;
    let _echo = story
        .server
        .peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let mut mesh = Mesh::default().start(&lab)?;
    mesh.apply(FILE, &admits("friend"))?;
    assert_eq!(story.calls()?, ["echoed", "reset"]);
    // The policy breaks, while a second one beside it comes into force.
    let broken = admits("stranger").replace("rules", "rulez");
    let second = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: second, namespace: shop}\n\
                  spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/friend]}}]}]}\n";
    mesh.apply(FILE, &format!("{broken}---\n{second}"))?;
    told(
        &lab,
        &mut mesh,
        FILE,
        &["AuthorizationPolicy shop/only", "rulez"],
    )?;
    assert_eq!(story.calls()?, ["reset", "reset"]);
    Ok(())
}

#[test]
fn a_directory_swapped_whole_is_followed_and_a_deleted_policy_ends() -> Result<()> {
    let lab = Lab::builder("swap").build()?;
    let story = Story::begin(&lab)?;
    let _echo = story
        .server
        .peer_server(["echo-server", "--listen", "0.0.0.0:8080"])?;
    let mesh = Mesh::default().start(&lab)?;
    mesh.apply(FILE, &admits("friend"))?;
    assert_eq!(story.calls()?, ["echoed", "reset"]);

    // Another directory takes the place of the first, with another policy.
    let directory = lab.manifests().directory().to_owned();
    let [next, old] = ["next", "old"].map(|name| lab.directory().join(name));
    fs::create_dir(&next).unwrap();
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), next.join(file.file_name())).unwrap();
    }
    fs::write(next.join(FILE), admits("stranger")).unwrap();
    fs::rename(&directory, &old).unwrap();
    // Nothing is deleted by a directory that isn't there.
    assert_eq!(story.calls()?, ["echoed", "reset"]);
    fs::rename(&next, &directory).unwrap();
    eventually("the other policy", DEADLINE, || {
        story.calls().unwrap() == ["reset", "echoed"]
    });
    put_right(&lab);

    // The new directory is the one that is watched.
    mesh.apply(FILE, &admits("friend"))?;
    assert_eq!(story.calls()?, ["echoed", "reset"]);
    lab.remove(FILE)?;
    eventually("no policy", DEADLINE, || {
        story.calls().unwrap() == ["echoed", "echoed"]
    });
    Ok(())
}
