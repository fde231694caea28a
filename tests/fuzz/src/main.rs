//! Every fuzz target in one program, so that there is one to link: `AMBIT_FUZZ_TARGET` names the one that
//! is run. `cargo xtask fuzz` builds and runs it.
#![no_main]

use std::{env, sync::LazyLock};

use ambit::fuzzing::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("AMBIT_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("AMBIT_FUZZ_TARGET is {name:?}, which is no target"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
