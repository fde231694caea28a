//! What one change costs the store, whoever follows it included, in stores of several sizes.

use ambit::discovery::store::Change;
use criterion::{BatchSize, BenchmarkId, Criterion};

use super::{
    fleet::{self, Fleet},
    processor_time::ProcessorTime,
};

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>, sizes: &[usize]) {
    let mut group = criterion.benchmark_group("change");
    for &size in sizes {
        let (store, mut fleet) = (fleet::store(size), Fleet::new());
        for endpoints in [10, 1_000] {
            store.apply(fleet.large_service(endpoints));
        }
        for (name, there, back) in changes(&mut fleet, size) {
            let mut updates = store.subscribe();
            let mut turn = false;
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_batched(
                    || {
                        turn = !turn;
                        if turn { there.clone() } else { back.clone() }
                    },
                    |change| {
                        store.apply([change]);
                        updates.try_recv().expect("each change changes something")
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

/// Each with the change that undoes it.
fn changes(fleet: &mut Fleet, size: usize) -> Vec<(&'static str, Change, Change)> {
    let new = fleet.upsert(&fleet::pod(size, "a1b2c3"));
    let gone = fleet::remove(&new);
    let mut upsert = |object| fleet.upsert(&object);
    vec![
        ("pod comes or goes", new, gone),
        (
            "labels of a pod",
            upsert(fleet::pod(7, "d4e5f6")),
            upsert(fleet::pod(7, "a1b2c3")),
        ),
        (
            "policy",
            upsert(fleet::policy("team-0", "other")),
            upsert(fleet::policy("team-0", "caller")),
        ),
        (
            "enrolment of a namespace of 100 pods",
            upsert(fleet::namespace("team-0", false)),
            upsert(fleet::namespace("team-0", true)),
        ),
        (
            "endpoint of 10",
            fleet.large_slice(10, 0, false),
            fleet.large_slice(10, 0, true),
        ),
        (
            "endpoint of 1,000",
            fleet.large_slice(1_000, 0, false),
            fleet.large_slice(1_000, 0, true),
        ),
    ]
}
