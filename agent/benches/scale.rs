//! What the size of the mesh costs: memory, one change, the kernel's maps, the authority.
//!
//! `cargo bench -p ambit --bench scale`. The maps need root and are left out, loudly, without it.

mod scale {
    pub(crate) mod allocator;
    pub(crate) mod authority;
    pub(crate) mod changes;
    pub(crate) mod fleet;
    pub(crate) mod maps;
    pub(crate) mod memory;
    pub(crate) mod processor_time;
}

use std::time::Duration;

use criterion::Criterion;
use scale::{authority, changes, maps, memory, processor_time::ProcessorTime};

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(ProcessorTime)
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    // Cargo runs benches as tests too, without optimisation: then only whether they work counts.
    let sizes: &[usize] = match cfg!(debug_assertions) {
        true => &[100],
        false => &[100, 10_000, 100_000],
    };
    memory::report(sizes);
    changes::bench(&mut criterion, sizes);
    authority::bench(&mut criterion, sizes);
    maps::bench(&mut criterion, sizes);
    criterion.final_summary();
}
