use std::time::UNIX_EPOCH;

use super::*;

const SCHEDULE: Schedule = Schedule {
    certificate_ttl: Duration::from_secs(10),
    overlap: Duration::from_secs(20),
    rotate_before: Duration::from_secs(50),
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn root(id: &str, not_after: u64, stage: Stage) -> Root {
    Root {
        id: id.to_owned(),
        not_after: at(not_after),
        stage,
        longest_certificate: Duration::from_secs(10),
    }
}

fn staged(since: u64) -> Stage {
    Stage::Staged { since: at(since) }
}

fn retired(until: u64) -> Stage {
    Stage::Retired { until: at(until) }
}

#[test]
fn the_next_step_follows_from_roots_and_time() {
    let create = |stage| Some(Step::Create(stage));
    let activate = |id: &str| Some(Step::Activate(id.to_owned()));
    let drop = |id: &str| Some(Step::Drop(id.to_owned()));
    let active = |not_after| root("a", not_after, Stage::Active);
    for (case, roots, now, requested, expected) in [
        (
            "first root signs at once",
            vec![],
            0,
            false,
            create(Stage::Active),
        ),
        ("long life left", vec![active(1000)], 949, false, None),
        (
            "threshold reached",
            vec![active(1000)],
            950,
            false,
            create(staged(950)),
        ),
        ("asked for", vec![active(1000)], 5, true, create(staged(5))),
        (
            "asked for, already under way",
            vec![active(1000), root("b", 2000, staged(100))],
            110,
            true,
            None,
        ),
        (
            "overlap not over",
            vec![active(1000), root("b", 2000, staged(100))],
            119,
            false,
            None,
        ),
        (
            "overlap over",
            vec![active(1000), root("b", 2000, staged(100))],
            120,
            false,
            activate("b"),
        ),
        (
            "active root expired before the overlap was over",
            vec![active(110), root("b", 2000, staged(100))],
            110,
            false,
            activate("b"),
        ),
        (
            "active root expired alone",
            vec![active(100)],
            100,
            false,
            create(Stage::Active),
        ),
        (
            "retired root still needed",
            vec![active(1000), root("z", 500, retired(130))],
            129,
            false,
            None,
        ),
        (
            "retired root no longer needed",
            vec![active(1000), root("z", 500, retired(130))],
            130,
            false,
            drop("z"),
        ),
        (
            "staged root expired",
            vec![active(1000), root("b", 100, staged(50))],
            100,
            false,
            drop("b"),
        ),
    ] {
        assert_eq!(
            next_step(&roots, &SCHEDULE, at(now), requested),
            expected,
            "{case}"
        );
    }
}

#[test]
fn a_longer_certificate_life_of_before_delays_what_follows() {
    let mut active = root("a", 1000, Stage::Active);
    active.longest_certificate = Duration::from_secs(100);
    // Two of its lives must fit before the end: one staged, one retired.
    let alone = [active.clone()];
    assert_eq!(next_due(&alone, &SCHEDULE), Some(at(800)));
    let mut both = [active, root("b", 2000, staged(800))];
    assert_eq!(next_due(&both, &SCHEDULE), Some(at(900)));
    activate(&mut both, "b", &SCHEDULE, at(890));
    assert_eq!(both[0].stage, retired(990));
    assert_eq!(both[1].stage, Stage::Active);
}

/// Walks through years of rotations and checks at each step what every agent relies on.
#[test]
fn a_certificate_is_trusted_by_every_agent_for_all_of_its_life() {
    let life = 200;
    let mut roots: Vec<Root> = Vec::new();
    // Bundles that agents may still have: when each was handed out, and its roots.
    let mut bundles: Vec<(u64, Vec<String>)> = Vec::new();
    let mut signed: Vec<(u64, String)> = Vec::new();
    let mut made = 0;
    for now in 0..2000 {
        while let Some(step) = next_step(&roots, &SCHEDULE, at(now), now == 60) {
            match step {
                Step::Create(stage) => {
                    made += 1;
                    roots.push(root(&made.to_string(), now + life, stage));
                }
                Step::Activate(id) => activate(&mut roots, &id, &SCHEDULE, at(now)),
                Step::Drop(id) => roots.retain(|root| root.id != id),
            }
        }
        let signer = active(&roots).unwrap();
        assert!(
            signer.not_after >= at(now + 10),
            "a certificate outlives its root at {now}"
        );
        signed.push((now, signer.id.clone()));
        bundles.push((now, roots.iter().map(|root| root.id.clone()).collect()));
        assert!(roots.len() <= 3, "{roots:?}");
        assert!(next_due(&roots, &SCHEDULE).unwrap() > at(now));

        let living = |issued: u64| issued + 10 > now;
        for (_, issuer) in signed.iter().filter(|(issued, _)| living(*issued)) {
            for (issued, bundle) in bundles.iter().filter(|(issued, _)| living(*issued)) {
                assert!(
                    bundle.contains(issuer),
                    "at {now}, bundle of {issued} lacks {issuer}"
                );
            }
        }
    }
    assert!(made > 10, "only {made} rotations");
}
