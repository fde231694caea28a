use std::io::{Read, Write};

use rustix::{event::epoll, pipe::pipe};

use super::*;

const WINDOW: Duration = Duration::from_micros(100);

/// What a thread knows after waits of so many microseconds, one after the other, and the time then.
fn after(waited: &[u64]) -> (Waits, Instant) {
    let (mut waits, mut now) = (Waits::NONE, Instant::now());
    for micros in waited {
        waits.begin(now);
        now += Duration::from_micros(*micros);
        waits.end(now, WINDOW);
    }
    (waits, now)
}

#[test]
fn a_wait_is_taken_for_short_after_some_that_were() {
    for (waited, expected) in [
        (&[][..], false),
        (&[20, 20, 20], false),
        (&[20, 20, 20, 20], true),
        // A sleep is longer than the wait by what waking takes.
        (&[140, 140, 140, 140], true),
        (&[150, 150, 150, 150], false),
        // Requests a millisecond apart, answered soon: every other wait is long.
        (&[80, 900, 80, 900, 80, 900, 80, 900], false),
        (&[20, 20, 20, 20, 1000], false),
        (&[20, 20, 20, 20, 1000, 20, 20, 20, 20], true),
    ] {
        let (waits, now) = after(waited);
        assert_eq!(waits.is_worth_asking(now, WINDOW), expected, "{waited:?}");
    }
}

#[test]
fn a_guess_that_failed_takes_some_short_waits_to_be_repeated() {
    let (mut waits, now) = after(&[20; 4]);
    waits.begin(now);
    waits.asked(Outcome::Found, now);
    waits.end(now + WINDOW * 10, WINDOW);
    assert!(waits.is_worth_asking(now, WINDOW), "nothing was slept");
    waits.begin(now);
    waits.asked(Outcome::Nothing, now + WINDOW);
    assert!(!waits.is_worth_asking(now + WINDOW, WINDOW));
}

#[test]
fn who_lost_its_processor_rests_for_many_times_as_long() {
    let (mut waits, start) = after(&[20; 4]);
    let lost = Duration::from_millis(3);
    waits.asked(Outcome::Displaced(lost), start);
    let mut now = start;
    while now < start + lost * REST - WINDOW {
        assert!(!waits.is_worth_asking(now, WINDOW));
        waits.begin(now);
        now += Duration::from_micros(20);
        waits.end(now, WINDOW);
    }
    assert!(waits.is_worth_asking(start + lost * REST, WINDOW));
}

#[test]
fn who_has_much_to_do_sleeps() {
    for (worked, expected) in [(0, true), (29, true), (30, false), (200, false)] {
        let (mut waits, ended) = after(&[20; 4]);
        let now = ended + Duration::from_micros(worked);
        waits.begin(now);
        assert_eq!(waits.is_worth_asking(now, WINDOW), expected, "{worked} us");
        // It isn't held against the next.
        waits.asked(Outcome::Found, now);
        waits.begin(now);
        assert!(waits.is_worth_asking(now, WINDOW));
    }
}

#[test]
fn what_would_wake_a_sleeper_is_seen_and_left_to_it() {
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let (reading, writing) = pipe().unwrap();
    let data = epoll::EventData::new_u64(7);
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&events, &reading, data, edges).unwrap();
    assert!(!has_events(&events));
    rustix::io::write(&writing, b"x").unwrap();
    assert!(has_events(&events));
    assert!(has_events(&events), "it was taken");
    let mut found = Vec::with_capacity(2);
    let at_once = Timespec::default();
    epoll::wait(
        &events,
        rustix::buffer::spare_capacity(&mut found),
        Some(&at_once),
    )
    .unwrap();
    assert_eq!(found.len(), 1);
    assert!(!has_events(&events));
}

/// A client that asks at once when it has its answer, and a server on the runtime.
#[test]
fn a_runtime_that_is_asked_again_and_again_asks_for_the_next_by_itself() {
    let runtime = runtime(WINDOW).unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let before = busy_polls::found();
    // How soon depends on the machine.
    for _ in 0..1_000_000 {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        if busy_polls::found() > before {
            return;
        }
    }
    panic!("no thread asked, in a million round trips");
}
