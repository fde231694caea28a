//! What the store keeps, by kind of object.

use ambit::discovery::store::Store;

use super::{allocator::allocated, fleet::Fleet, processor_time};

pub(crate) fn report(sizes: &[usize]) {
    for &size in sizes {
        let (store, mut fleet) = (Store::default(), Fleet::new());
        for (kind, make) in [
            ("workload", Fleet::pods as fn(&mut Fleet, usize) -> _),
            ("service", Fleet::services),
            ("policy", Fleet::policies),
        ] {
            let before = allocated();
            let changes: Vec<_> = make(&mut fleet, size);
            let begun = processor_time::now();
            store.apply(changes);
            let took = processor_time::now() - begun;
            let snapshot = store.snapshot();
            let count = match kind {
                "workload" => snapshot.workloads().count(),
                "service" => snapshot.services().count(),
                _ => snapshot.policies().authorizations().count(),
            };
            let bytes = allocated() - before;
            println!(
                "memory/{size}: {count} x {kind}: {} KiB, {} bytes each; applied at once in {took:?}",
                bytes / 1024,
                bytes / count.max(1).cast_signed(),
            );
        }
    }
}
