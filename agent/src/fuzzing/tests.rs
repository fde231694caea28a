//! Every target over its corpus, and over what proptest makes of it.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

/// Inputs for each target: a fuzzer makes as many in a moment, but it isn't run before every merge.
const CASES: u32 = 1000;

/// Where the seeds are, and what is in there.
fn entries(directory: &str) -> Vec<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("run by Cargo");
    let directory = Path::new(&package)
        .join("../tests/fuzz/corpus")
        .join(directory);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A seed with bytes of it changed, taken out, or doubled.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
    (prop::sample::select(seeds), vec(change, 0..6)).prop_map(|(mut seed, changes)| {
        for (place, byte, how) in changes {
            if seed.is_empty() {
                break;
            }
            let place = place.index(seed.len());
            match how {
                0 => seed[place] = byte,
                1 => seed.truncate(place),
                _ => seed.extend_from_within(place..),
            }
            seed.truncate(4096);
        }
        seed
    })
}

#[track_caller]
fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let files = entries(name);
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 2, "{name} has hardly any seeds");
    for seed in &seeds {
        let shown = String::from_utf8_lossy(seed);
        catch_unwind(AssertUnwindSafe(|| (target.run)(seed)))
            .unwrap_or_else(|_| panic!("the seed {shown:?}"));
    }
    let inputs = prop_oneof![3 => changed(seeds), 1 => vec(any::<u8>(), 0..200)];
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    });
    let outcome = runner.run(&inputs, |input| {
        (target.run)(&input);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! each_target_holds {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        #[test]
        fn every_target_is_tested_here() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), tested);
            // `cargo xtask fuzz` takes the names from there.
            let mut seeded: Vec<_> = entries("")
                .iter()
                .map(|it| it.file_name().unwrap().to_str().unwrap().to_owned())
                .collect();
            seeded.sort_unstable();
            let mut names = TARGETS.map(|target| target.name);
            names.sort_unstable();
            assert_eq!(seeded, names);
        }
    };
}

each_target_holds! {
    routes path spoken authority headers frame spiffe certificate request token jwks manifest policy trace
    btf hello
}
