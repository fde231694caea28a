use super::*;

/// The Lease of an API server: its version, and who holds it.
type Kept = Option<(u32, Option<Arc<str>>)>;

/// What somebody does.
enum Act {
    /// These look, all before any writes; then they write in this order.
    Look(&'static [&'static str]),
    /// Looks and writes, but never hears that it was written.
    IsCutOff(&'static str),
    /// Says that it leads no longer.
    Leaves(&'static str),
    /// Time has passed.
    Time,
}
use Act::{IsCutOff, Leaves, Look, Time};

fn seen(kept: &Kept) -> Option<Seen> {
    kept.as_ref().map(|(version, holder)| Seen {
        version: Some(version.to_string()),
        holder: holder.clone(),
        valid: VALID,
    })
}

/// Acts, each at a second of a clock, and who leads then.
fn check(story: &str, acts: &[(u64, Act, &str)]) {
    let begun = Instant::now();
    let mut kept: Kept = None;
    let mut candidates = ["a", "b"].map(|name| (name, Election::new(name.into(), RENEW_DEADLINE)));
    for (second, act, expected) in acts {
        let now = begun + Duration::from_secs(*second);
        let mut election = |name: &str, of: &mut dyn FnMut(&mut Election)| {
            let mut all = candidates.iter_mut();
            of(&mut all.find(|(candidate, _)| *candidate == name).unwrap().1);
        };
        let before = kept.clone();
        let mut write = |holder: Option<&str>| {
            let is_first = kept == before;
            if is_first {
                let version = before.as_ref().map_or(0, |(version, _)| version + 1);
                kept = Some((version, holder.map(Arc::from)));
            }
            seen(&kept).filter(|_| is_first)
        };
        match act {
            Look(names) => {
                for name in *names {
                    election(name, &mut |election| {
                        if election.look(seen(&before), now) == Step::Write
                            && let Some(lease) = write(Some(name))
                        {
                            election.written(lease, now);
                        }
                    });
                }
            }
            IsCutOff(name) => election(name, &mut |election| {
                if election.look(seen(&before), now) == Step::Write {
                    write(Some(name));
                }
            }),
            Leaves(name) => {
                write(None);
                election(name, &mut |election| {
                    *election = Election::new((*name).into(), RENEW_DEADLINE);
                });
            }
            Time => {}
        }
        let leading = candidates
            .iter_mut()
            .filter_map(|(name, election)| election.is_leading(now).then_some(*name));
        let leading = leading.collect::<Vec<_>>().join(" and ");
        assert_eq!(leading, *expected, "{story}: at {second} s");
    }
}

#[test]
fn one_leads_at_a_time() {
    check(
        "the first leads for as long as it renews",
        &[
            (0, Look(&["a"]), "a"),
            (1, Look(&["b"]), "a"),
            (9, Look(&["a"]), "a"),
            (18, Look(&["a", "b"]), "a"),
            (27, Look(&["b", "a"]), "a"),
        ],
    );
    check(
        "of two that are there at once the faster leads",
        &[(0, Look(&["b", "a"]), "b"), (2, Look(&["a", "b"]), "b")],
    );
    check(
        "one that dies is replaced once its Lease was seen unchanged for 15 s",
        &[
            (0, Look(&["a"]), "a"),
            (5, Look(&["b"]), "a"),
            (10, Time, ""),
            (19, Look(&["b"]), ""),
            (20, Look(&["b"]), "b"),
        ],
    );
    check(
        "an old Lease says nothing of when it was written",
        &[
            (0, Look(&["a"]), "a"),
            (100, Look(&["b"]), ""),
            (114, Look(&["b"]), ""),
            (115, Look(&["b"]), "b"),
        ],
    );
    check(
        "one that can't reach the server stops before another may begin",
        &[
            (0, Look(&["a", "b"]), "a"),
            (2, Look(&["b"]), "a"),
            (9, Time, "a"),
            (10, Time, ""),
            (17, Look(&["b"]), "b"),
            (18, Look(&["a"]), "b"),
        ],
    );
    check(
        "a renewal that was heard of by others alone counts for them, not for the leader",
        &[
            (0, Look(&["a", "b"]), "a"),
            (8, IsCutOff("a"), "a"),
            (9, Look(&["b"]), "a"),
            (10, Time, ""),
            (17, Look(&["b"]), ""),
            (23, Look(&["a"]), "a"),
        ],
    );
    check(
        "one that leaves is replaced at once",
        &[
            (0, Look(&["a", "b"]), "a"),
            (3, Leaves("a"), ""),
            (4, Look(&["b"]), "b"),
            (5, Look(&["a"]), "b"),
        ],
    );
}

#[tokio::test]
async fn a_task_runs_only_while_the_replica_leads() {
    let leading = watch::Sender::new(false);
    let (began, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let running = Arc::new(());
    let held = Arc::clone(&running);
    let following = tokio::spawn(while_leading(leading.subscribe(), move || {
        let (began, held) = (began.clone(), Arc::clone(&held));
        async move {
            let _held = held;
            began.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    }));
    for _ in 0..2 {
        leading.send_replace(true);
        begins.recv().await.unwrap();
        assert_eq!(Arc::strong_count(&running), 3);
        leading.send_replace(false);
        while Arc::strong_count(&running) > 2 {
            tokio::task::yield_now().await;
        }
    }
    assert!(begins.try_recv().is_err());
    drop(leading);
    following.await.unwrap();
}
