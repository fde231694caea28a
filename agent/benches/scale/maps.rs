//! What it takes to bring the whole mesh into the kernel's maps, and one change of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ambit::capture::{
    Settings,
    attach::Mechanism,
    loader,
    publish::{Entry, MeshMaps as _, Publisher},
};
use criterion::{BenchmarkId, Criterion};

use super::{
    fleet,
    processor_time::{self, ProcessorTime},
};

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>, sizes: &[usize]) {
    // The programs' log is read by a task.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a thread can be started");
    let _entered = runtime.enter();
    let bpffs = BpfFs::new();
    let mut loaded = match loader::load(&bpffs.settings()) {
        Ok(loaded) => loaded,
        Err(error) => return println!("maps: LEFT OUT, NOTHING IS MEASURED: {error}"),
    };
    let maps = &mut loaded.maps;
    let mut group = criterion.benchmark_group("maps");
    group.sample_size(10);
    for &size in sizes {
        let snapshot = fleet::store(size).snapshot();
        let mut publisher = Publisher::default();
        group.bench_function(BenchmarkId::new("filled", size), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    for entry in maps.entries() {
                        maps.set(entry, false).expect("the kernel removes");
                    }
                    let begun = processor_time::now();
                    let published = publisher.publish_all(maps, &snapshot);
                    took += processor_time::now() - begun;
                    published.expect("there is room");
                }
                took
            });
        });
        assert_eq!(publisher.left_out().count(), 0);
        group.bench_function(BenchmarkId::new("compared", size), |bencher| {
            bencher.iter(|| publisher.publish_all(maps, &snapshot));
        });
        let entry = Entry::Workload([192, 0, 2, 1].into());
        group.bench_function(BenchmarkId::new("one comes and goes", size), |bencher| {
            bencher.iter(|| [true, false].map(|is_there| maps.set(entry, is_there)));
        });
    }
    group.finish();
}

/// A BPF file system of its own, so that no agent's pins are touched.
struct BpfFs(tempfile::TempDir);

impl BpfFs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("bpf")
    }

    fn settings(&self) -> Settings {
        Settings {
            bpffs: self.path(),
            pass_for: Duration::ZERO,
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            node: Arc::from("bench"),
            allow_unknown_pods: false,
            allow_without_agent: false,
            hold: Duration::ZERO,
            mechanism: Mechanism::Auto,
            splice: None,
        }
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // It isn't mounted where the programs can't be loaded.
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::empty());
    }
}
