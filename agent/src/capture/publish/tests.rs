use std::collections::BTreeMap;

use super::*;
use crate::discovery::{
    facts::{Kind, Object, ObjectKey},
    manifest::{self, Format},
    reduce::Reducer,
    store::{Change, Store},
};

/// Maps of four entries each.
#[derive(Default)]
struct SmallMaps {
    entries: BTreeSet<Entry>,
    capture_all: bool,
    writes: usize,
}

const ROOM: usize = 4;

impl MeshMaps for SmallMaps {
    fn entries(&self) -> Vec<Entry> {
        self.entries.iter().copied().collect()
    }

    fn set(&mut self, entry: Entry, is_there: bool) -> Result<(), maps::Error> {
        self.writes += 1;
        let is_workload = |entry: &Entry| matches!(entry, Entry::Workload(_));
        let of_kind = |held: &&Entry| is_workload(held) == is_workload(&entry);
        let full = self.entries.iter().filter(of_kind).count() == ROOM;
        if is_there && full && !self.entries.contains(&entry) {
            return Err(maps::Error::refusal(libc::E2BIG));
        }
        if is_there {
            self.entries.insert(entry);
        } else {
            self.entries.remove(&entry);
        }
        Ok(())
    }

    fn set_capture_all(&mut self, capture_all: bool) -> Result<(), maps::Error> {
        self.capture_all = capture_all;
        Ok(())
    }
}

/// Pods `0..pods` of an enrolled namespace, and Services `0..services`.
fn objects(pods: u8, services: u8) -> BTreeMap<String, Change> {
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: \
                     {ambit.dev/mesh: enabled}}}"
        .to_owned();
    let pod = |n| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: p{n}}}, \
             status: {{podIP: 10.0.0.{n}}}}}"
        )
    };
    let service = |n| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: s{n}}}, \
             spec: {{clusterIP: 10.96.0.{n}, ports: [{{port: 80}}]}}}}"
        )
    };
    let all = [namespace].into_iter().chain((0..pods).map(pod));
    let yaml: Vec<_> = all.chain((0..services).map(service)).collect();
    let mut reducer = Reducer::new("cluster.local");
    let parsed = manifest::parse(&yaml.join("\n---\n"), Format::Yaml, &mut reducer).unwrap();
    let parsed = parsed.objects.into_iter();
    parsed
        .map(|parsed| (parsed.key.to_string(), Change::Upsert(parsed.object)))
        .collect()
}

fn remove(objects: &BTreeMap<String, Change>, key: &str) -> Change {
    let kind = match &objects[key] {
        Change::Upsert(Object::Pod(pod)) => (Kind::Pod, &pod.workload.name),
        Change::Upsert(Object::Service(service)) => (Kind::Service, &service.name),
        other => panic!("{other:?}"),
    };
    Change::Remove(ObjectKey {
        kind: kind.0,
        name: kind.1.clone(),
    })
}

#[test]
fn what_there_is_no_room_for_is_captured_with_all_else_until_there_is() {
    let all = objects(6, 5);
    let store = Store::default();
    let mut updates = store.subscribe();
    let (mut maps, mut publisher) = (SmallMaps::default(), Publisher::default());
    let left_out = publisher.left_out();
    store.apply(all.values().cloned());
    // Changes; whether everything is captured then; how many are left out.
    let steps: [(&[&str], bool, usize); 5] = [
        (&[], true, 3),
        (&["Pod shop/p0"], true, 2),
        (&["Pod shop/p5"], true, 1),
        (&["Service shop/s2"], false, 0),
        (&["Pod shop/p1", "Service shop/s0"], false, 0),
    ];
    for (removed, capture_all, expected) in steps {
        if !removed.is_empty() {
            store.apply(removed.iter().map(|key| remove(&all, key)));
        }
        let update = updates.try_recv().unwrap();
        publisher.publish(&mut maps, &update).unwrap();
        assert_eq!(
            (maps.capture_all, left_out.count()),
            (capture_all, expected),
            "{removed:?}"
        );

        // One that starts afresh on these maps comes to the same.
        let mut afresh = Publisher::default();
        afresh.publish_all(&mut maps, &store.snapshot()).unwrap();
        assert_eq!(
            (maps.capture_all, afresh.left_out().count()),
            (capture_all, expected),
            "{removed:?}"
        );
    }
    assert_eq!(maps.entries.len(), 6);
}

#[test]
fn publishing_all_writes_only_what_differs() {
    let store = Store::default();
    store.apply(objects(3, 2).into_values());
    let stale = Entry::Workload([10, 0, 0, 99].into());
    let mut maps = SmallMaps {
        entries: BTreeSet::from([stale]),
        capture_all: true,
        writes: 0,
    };
    for writes in [6, 0] {
        maps.writes = 0;
        let mut publisher = Publisher::default();
        publisher.publish_all(&mut maps, &store.snapshot()).unwrap();
        assert_eq!((maps.writes, maps.capture_all), (writes, false));
    }
    assert!(!maps.entries.contains(&stale));
    assert_eq!(maps.entries.len(), 5);
}

#[test]
fn another_refusal_is_an_error() {
    struct Broken;
    impl MeshMaps for Broken {
        fn entries(&self) -> Vec<Entry> {
            Vec::new()
        }
        fn set(&mut self, _: Entry, _: bool) -> Result<(), maps::Error> {
            Err(maps::Error::refusal(libc::EPERM))
        }
        fn set_capture_all(&mut self, _: bool) -> Result<(), maps::Error> {
            Ok(())
        }
    }
    let store = Store::default();
    store.apply(objects(1, 0).into_values());
    let published = Publisher::default().publish_all(&mut Broken, &store.snapshot());
    assert!(!published.unwrap_err().is_full());
}
