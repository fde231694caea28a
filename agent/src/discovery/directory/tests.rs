use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::*;
use crate::discovery::store::{Snapshot, Update};

fn pod(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: {name}, uid: u-{name}}}\n\
         spec: {{nodeName: a}}\nstatus: {{podIP: {address}}}\n"
    )
}

/// A directory, followed, and the store it feeds.
struct Followed {
    path: PathBuf,
    store: Arc<Store>,
    updates: Receiver<Arc<Update>>,
    problems: Problems,
    cancellation: CancellationToken,
    _root: TempDir,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.cancellation.cancel();
    }
}

impl Followed {
    async fn new(files: &[(&str, &str)]) -> Self {
        Self::prepared(|path| {
            for (name, text) in files {
                fs::write(path.join(name), text).unwrap();
            }
        })
        .await
    }

    async fn prepared(prepare: impl FnOnce(&Path)) -> Self {
        let root = TempDir::new().unwrap();
        let path = root.path().join("manifests");
        fs::create_dir(&path).unwrap();
        prepare(&path);
        let store = Arc::new(Store::default());
        let directory = Directory::open(&path, "cluster.local", Arc::clone(&store))
            .await
            .unwrap();
        let (problems, cancellation) = (directory.problems(), CancellationToken::new());
        let updates = store.subscribe();
        tokio::spawn(directory.run(cancellation.clone()));
        Self {
            path,
            store,
            updates,
            problems,
            cancellation,
            _root: root,
        }
    }

    /// Replaces a file as careful tools do: another file is written and renamed over it.
    fn replace(&self, name: &str, text: &str) {
        let temporary = self.path.join(".temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path.join(name)).unwrap();
    }

    fn pods(&self) -> Vec<String> {
        pods(&self.store.snapshot())
    }

    fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/", self.path.display());
        let problems = self.problems.list();
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&prefix, ""))
            .collect()
    }

    /// Awaits updates until the pods are these.
    async fn until(&mut self, expected: &[&str]) {
        self.until_pods(|pods| pods == expected).await;
    }

    /// Adds a pod and awaits it: whatever happened before has then been dealt with.
    async fn settle(&mut self) {
        let is_there = |pods: &[String]| pods.contains(&"zz 10.9.9.9".to_owned());
        self.replace("zz-settle.yaml", &pod("zz", "10.9.9.9"));
        self.until_pods(is_there).await;
        fs::remove_file(self.path.join("zz-settle.yaml")).unwrap();
        self.until_pods(|pods| !is_there(pods)).await;
    }

    /// Gives up after so long that something must be wrong.
    async fn until_pods(&mut self, reached: impl Fn(&[String]) -> bool) {
        let (store, updates) = (&self.store, &mut self.updates);
        let wait = async {
            while !reached(&pods(&store.snapshot())) {
                match updates.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => panic!("the store is gone"),
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .is_err()
        {
            panic!(
                "the pods are still {:?}; problems: {:?}",
                self.pods(),
                self.problems()
            );
        }
    }
}

fn pods(snapshot: &Snapshot) -> Vec<String> {
    let mut pods: Vec<_> = snapshot
        .workloads()
        .map(|workload| format!("{} {}", workload.name.name, workload.addresses[0]))
        .collect();
    pods.sort();
    pods
}

#[tokio::test]
async fn everything_is_loaded_at_the_start() {
    let json =
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c"},"status":{"podIP":"10.0.0.3"}}"#;
    let followed = Followed::new(&[
        ("a.yaml", &pod("a", "10.0.0.1")),
        ("b.yml", &pod("b", "10.0.0.2")),
        ("c.json", json),
        (".hidden.yaml", &pod("d", "10.0.0.4")),
        ("notes.txt", "not: [a manifest"),
    ])
    .await;
    assert_eq!(followed.pods(), ["a 10.0.0.1", "b 10.0.0.2", "c 10.0.0.3"]);
    assert_eq!(followed.problems(), [""; 0]);
}

#[tokio::test]
async fn missing_directory_is_an_error_at_the_start() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("none");
    let error = Directory::open(&path, "d", Arc::default())
        .await
        .unwrap_err()
        .to_string();
    let expected = format!("the manifest directory {} can't be read: ", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn files_written_replaced_renamed_and_deleted_are_followed() {
    let mut followed = Followed::new(&[("a.yaml", &pod("a", "10.0.0.1"))]).await;
    fs::write(followed.path.join("b.yaml"), pod("b", "10.0.0.2")).unwrap();
    followed.until(&["a 10.0.0.1", "b 10.0.0.2"]).await;
    fs::write(followed.path.join("b.yaml"), pod("b", "10.0.0.3")).unwrap();
    followed.until(&["a 10.0.0.1", "b 10.0.0.3"]).await;
    followed.replace("a.yaml", &pod("a", "10.0.0.4"));
    followed.until(&["a 10.0.0.4", "b 10.0.0.3"]).await;
    fs::remove_file(followed.path.join("b.yaml")).unwrap();
    followed.until(&["a 10.0.0.4"]).await;
    fs::rename(followed.path.join("a.yaml"), followed.path.join("a.off")).unwrap();
    followed.until(&[]).await;
}

#[tokio::test]
async fn only_what_is_different_changes() {
    let (a, b) = (pod("a", "10.0.0.1"), pod("b", "10.0.0.2"));
    let policy = "---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
                  metadata: {namespace: shop, name: default}}\n";
    let mut followed = Followed::new(&[("all.yaml", &(a.clone() + &b + policy))]).await;
    followed.replace("all.yaml", &(a + &pod("b", "10.0.0.3") + policy));
    let update = followed.updates.recv().await.unwrap();
    assert_eq!(pods(&update.snapshot), ["a 10.0.0.1", "b 10.0.0.3"]);
    assert_eq!(
        (update.workloads.len(), update.policies_changed),
        (1, false)
    );
}

#[tokio::test]
async fn renaming_a_file_changes_nothing() {
    let mut followed = Followed::new(&[("z.yaml", &pod("a", "10.0.0.1"))]).await;
    let before = only(&followed.store.snapshot());
    fs::rename(followed.path.join("z.yaml"), followed.path.join("a.yaml")).unwrap();
    followed.settle().await;
    assert!(Arc::ptr_eq(&before, &only(&followed.store.snapshot())));
    assert_eq!(followed.problems(), [""; 0]);
}

fn only(snapshot: &Snapshot) -> Arc<crate::discovery::model::Workload> {
    Arc::clone(snapshot.workloads().next().unwrap())
}

#[tokio::test]
async fn config_map_mount_is_followed_as_its_link_is_swapped() {
    let mut followed = Followed::prepared(|path| {
        fs::create_dir(path.join("..v1")).unwrap();
        fs::write(path.join("..v1/a.yaml"), pod("a", "10.0.0.1")).unwrap();
        symlink("..v1", path.join("..data")).unwrap();
        symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    })
    .await;
    assert_eq!(followed.pods(), ["a 10.0.0.1"]);
    let path = followed.path.clone();
    fs::create_dir(path.join("..v2")).unwrap();
    fs::write(path.join("..v2/a.yaml"), pod("a", "10.0.0.2")).unwrap();
    symlink("..v2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    fs::remove_dir_all(path.join("..v1")).unwrap();
    followed.until(&["a 10.0.0.2"]).await;
}

#[tokio::test]
async fn broken_file_leaves_its_last_good_state_until_it_is_mended() {
    let mut followed = Followed::new(&[("a.yaml", &pod("a", "10.0.0.1"))]).await;
    followed.replace("a.yaml", "apiVersion: [v1\nkind: Pod\n");
    followed.settle().await;
    assert_eq!(followed.pods(), ["a 10.0.0.1"]);
    let problems = followed.problems();
    assert!(
        problems.len() == 1 && problems[0].starts_with("a.yaml: not a manifest: "),
        "{problems:?}"
    );
    followed.replace("a.yaml", &pod("a", "10.0.0.2"));
    followed.until(&["a 10.0.0.2"]).await;
    followed.settle().await;
    assert_eq!(followed.problems(), [""; 0]);
}

#[tokio::test]
async fn broken_object_leaves_its_last_good_state_and_the_others_change() {
    let (a, b) = (pod("a", "10.0.0.1"), pod("b", "10.0.0.2"));
    let mut followed = Followed::new(&[("all.yaml", &(a + &b))]).await;
    followed.replace("all.yaml", &(pod("a", "10.0.0") + &pod("b", "10.0.0.3")));
    followed.until(&["a 10.0.0.1", "b 10.0.0.3"]).await;
    followed.settle().await;
    assert_eq!(
        followed.problems(),
        ["all.yaml: Pod shop/a: status.podIP: \"10.0.0\" is not an IP address"]
    );
    followed.replace("all.yaml", &pod("b", "10.0.0.3"));
    followed.until(&["b 10.0.0.3"]).await;
    followed.settle().await;
    assert_eq!(followed.problems(), [""; 0]);
}

#[tokio::test]
async fn a_route_for_a_service_that_is_not_there_is_a_problem_until_it_is_gone() {
    let route = "---\n{apiVersion: gateway.networking.k8s.io/v1beta1, kind: HTTPRoute, \
                 metadata: {namespace: shop, name: canary}, \
                 spec: {parentRefs: [{group: '', kind: Service, name: web}]}}\n";
    let both = pod("a", "10.0.0.1") + route;
    let mut followed = Followed::new(&[("all.yaml", &both)]).await;
    assert_eq!(followed.pods(), ["a 10.0.0.1"]);
    let problems = followed.problems();
    let expected =
        "all.yaml: HTTPRoute shop/canary: spec.parentRefs[0]: there is no Service shop/web: ";
    assert!(
        problems.len() == 1 && problems[0].starts_with(expected),
        "{problems:?}"
    );
    followed.replace("all.yaml", &pod("a", "10.0.0.2"));
    followed.until(&["a 10.0.0.2"]).await;
    followed.settle().await;
    assert_eq!(followed.problems(), [""; 0]);
}

#[tokio::test]
async fn object_that_lost_its_name_deletes_nothing() {
    let (a, b) = (pod("a", "10.0.0.1"), pod("b", "10.0.0.2"));
    let mut followed = Followed::new(&[("all.yaml", &(a + &b))]).await;
    followed.replace(
        "all.yaml",
        &(pod("a", "10.0.0.3") + &b.replace("name: b, ", "")),
    );
    followed.until(&["a 10.0.0.3", "b 10.0.0.2"]).await;
    followed.replace("all.yaml", &pod("a", "10.0.0.3"));
    followed.until(&["a 10.0.0.3"]).await;
}

#[tokio::test]
async fn first_file_keeps_serving_a_duplicate_and_the_second_takes_over() {
    let mut followed = Followed::new(&[
        ("a.yaml", &pod("p", "10.0.0.1")),
        ("b.yaml", &pod("p", "10.0.0.2")),
    ])
    .await;
    assert_eq!(followed.pods(), ["p 10.0.0.1"]);
    assert_eq!(
        followed.problems(),
        [
            "b.yaml: Pod shop/p is already defined in a.yaml, which keeps serving; \
          remove one of the two"
        ]
    );
    fs::remove_file(followed.path.join("a.yaml")).unwrap();
    followed.until(&["p 10.0.0.2"]).await;
    followed.settle().await;
    assert_eq!(followed.problems(), [""; 0]);
}

#[tokio::test]
async fn second_of_two_equal_names_in_one_file_is_refused() {
    let twice = pod("p", "10.0.0.1") + &pod("p", "10.0.0.2");
    let followed = Followed::new(&[("a.yaml", &twice)]).await;
    assert_eq!(followed.pods(), ["p 10.0.0.1"]);
    assert_eq!(
        followed.problems(),
        [
            "a.yaml: Pod shop/p is already defined in a.yaml, which keeps serving; \
          remove one of the two"
        ]
    );
}

#[tokio::test]
async fn directory_that_vanishes_leaves_its_last_state_until_it_is_back() {
    let mut followed = Followed::new(&[("a.yaml", &pod("a", "10.0.0.1"))]).await;
    let aside = followed.path.with_extension("aside");
    fs::rename(&followed.path, &aside).unwrap();
    fs::write(aside.join("a.yaml"), pod("a", "10.0.0.2")).unwrap();
    fs::create_dir(&followed.path).unwrap();
    fs::write(followed.path.join("b.yaml"), pod("b", "10.0.0.3")).unwrap();
    followed.until(&["b 10.0.0.3"]).await;
    fs::write(followed.path.join("b.yaml"), pod("b", "10.0.0.4")).unwrap();
    followed.until(&["b 10.0.0.4"]).await;
}

#[test]
fn load_without_the_directory_deletes_nothing() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("manifests");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    let store = Arc::new(Store::default());
    let mut loader = Loader::new(path.clone(), "d".into(), Arc::clone(&store));
    loader.load(Scope::Everything).unwrap();
    fs::remove_dir_all(&path).unwrap();
    let file: Arc<str> = "a.yaml".into();
    let error = loader.load(Scope::Files([file].into())).unwrap_err();
    loader.keep_all(&error);
    assert_eq!(pods(&store.snapshot()), ["a 10.0.0.1"]);
    let problem = loader.problems.list()[0].to_string();
    assert!(problem.ends_with("; its last state serves"), "{problem}");
}

#[test]
fn what_is_not_a_readable_file_is_a_problem_and_deletes_nothing() {
    let root = TempDir::new().unwrap();
    let path = root.path().to_owned();
    fs::write(path.join("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    let store = Arc::new(Store::default());
    let mut loader = Loader::new(path.clone(), "d".into(), Arc::clone(&store));
    loader.load(Scope::Everything).unwrap();
    type Make = fn(&Path);
    let cases: [(&str, Make); 2] = [
        ("it is not a file", |file| fs::create_dir(file).unwrap()),
        ("stream did not contain valid UTF-8", |file| {
            fs::write(file, [0xff]).unwrap()
        }),
    ];
    for (reason, make) in cases {
        let file = path.join("a.yaml");
        fs::remove_file(&file).unwrap();
        make(&file);
        loader.load(Scope::Everything).unwrap();
        assert_eq!(pods(&store.snapshot()), ["a 10.0.0.1"], "{reason}");
        let problem = loader.problems.list()[0].kind.to_string();
        assert_eq!(problem, format!("can't be read: {reason}"));
        if file.is_dir() {
            fs::remove_dir(&file).unwrap();
            fs::write(&file, "").unwrap();
        }
    }
}
