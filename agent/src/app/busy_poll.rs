//! The runtime, whose threads ask for events for a while where to sleep would cost more.
//!
//! Waking a processor that has nothing to do takes some microseconds, and tens of them on a virtual machine, where the
//! interrupt is an exit. For an answer that comes through two agents that was more than all else together
//! (ARCHITECTURE.md, "Speed: what was tried"). So a thread that was woken soon several times in a row asks the kernel
//! itself before it sleeps again, as hypervisors do before they halt a processor.
//!
//! Others come first: between two looks a thread yields its processor, and asks no more for a while if somebody took
//! it for long. One that has much to do just sleeps, and of the process one asks at a time.
#![expect(
    unsafe_code,
    reason = "getrusage and a borrowed descriptor have no safe binding; each says why it is sound"
)]

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs, io, mem,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::{Builder, Runtime};

use crate::telemetry::busy_polls::{self, Outcome};

/// So many waits in a row must have been short before the next is taken for one: a failed guess costs a window of
/// the processor's time, and comes once in so many waits at most.
const IN_A_ROW: u32 = 4;
/// Who lost its processor for some time asks no more for so many times as long: no more than a thirty-third of
/// all time can be lost.
const REST: u32 = 32;
/// What a thread may have worked since its last wait, of a window: measured with windows of 100 us, where 15 us were
/// too little for one connection, and 32 did not gain without a bound.
const LITTLE_WORK: f64 = 0.3;
/// No switch to another thread and back is shorter.
const SWITCH: Duration = Duration::from_micros(1);

/// A runtime whose threads, one at a time, ask for events for so long before they sleep; zero: they just sleep.
///
/// # Errors
/// If threads, or what they wait by, can't be made.
pub(crate) fn runtime(window: Duration) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    if window.is_zero() {
        return builder.build();
    }
    let polling = Arc::new(BusyPoll {
        window,
        events: OnceLock::new(),
        is_asking: AtomicBool::new(false),
    });
    let (before, after) = (polling.clone(), polling.clone());
    builder
        .on_thread_park(move || before.before_sleep())
        .on_thread_unpark(move || after.after_sleep());
    // The runtime doesn't tell which descriptor its threads wait by: it is the one that wasn't there before.
    let earlier = epoll_instances();
    let runtime = builder.build()?;
    match epoll_instances().difference(&earlier).next() {
        Some(&found) => {
            // SAFETY: it is open, and stays so as long as the runtime, which lives longer than this borrow.
            let events = unsafe { BorrowedFd::borrow_raw(found) };
            // It is set once.
            let _ = polling.events.set(events.try_clone_to_owned()?);
        }
        None => tracing::warn!(
            "what the runtime's threads wait by wasn't found in /proc/self/fd: --busy-poll has no effect"
        ),
    }
    Ok(runtime)
}

/// The process's descriptors of epoll instances; none if they can't be listed.
fn epoll_instances() -> BTreeSet<RawFd> {
    let entries = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| {
            // The descriptor that reads the directory is gone by then, and none of them.
            fs::read_link(entry.path())
                .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]")
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What the threads of a runtime share.
struct BusyPoll {
    window: Duration,
    /// What they wait by.
    events: OnceLock<OwnedFd>,
    /// One of them asks.
    is_asking: AtomicBool,
}

thread_local! {
    static WAITS: Cell<Waits> = const { Cell::new(Waits::NONE) };
}

impl BusyPoll {
    fn before_sleep(&self) {
        let start = Instant::now();
        let mut waits = WAITS.get();
        waits.begin(start);
        if let Some(events) = self.events.get()
            && waits.is_worth_asking(start, self.window)
            && !self.is_asking.swap(true, Ordering::Acquire)
        {
            let outcome = self.ask(events, start);
            self.is_asking.store(false, Ordering::Release);
            busy_polls::count(outcome);
            waits.asked(outcome, Instant::now());
        }
        WAITS.set(waits);
    }

    fn after_sleep(&self) {
        let mut waits = WAITS.get();
        waits.end(Instant::now(), self.window);
        WAITS.set(waits);
    }

    /// While it asks, the runtime takes the thread for one that looks for work, and wakes no other for what
    /// busy threads have waiting.
    fn ask(&self, events: &OwnedFd, start: Instant) -> Outcome {
        let mut expected = switches();
        loop {
            if has_events(events) {
                return Outcome::Found;
            }
            let before = Instant::now();
            if before - start >= self.window {
                return Outcome::Nothing;
            }
            thread::yield_now();
            let away = before.elapsed();
            // What a hypervisor takes is nobody's here, and would have been as long in a sleep.
            if away >= self.window && switches() > expected {
                return Outcome::Displaced(away);
            }
            expected += i64::from(away >= SWITCH);
        }
    }
}

/// Whether somebody who sleeps by it would be woken now. Takes nothing.
fn has_events(events: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(events, PollFlags::IN)];
    // What can't be asked is left to sleep.
    poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// How often the calling thread's processor was given to another that wanted it.
fn switches() -> i64 {
    // SAFETY: all zeros are a value of it, and the kernel writes one of its size.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        if libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) != 0 {
            return 0;
        }
        usage
    };
    usage.ru_nivcsw
}

/// What a thread knows of its waits. Pure: time is given.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// How many of the last were short, in a row.
    short: u32,
    /// When the one began that isn't over.
    since: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Until then others need the processor.
    rests_until: Option<Instant>,
}

impl Waits {
    const NONE: Self = Self {
        short: 0,
        since: None,
        ended: None,
        rests_until: None,
    };

    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Whether the wait that has begun is likely to be short, and the thread has little else to do. One that works
    /// for long between its waits serves many connections: they fill the processors without it, and more at once
    /// come of a sleep.
    fn is_worth_asking(&self, now: Instant, window: Duration) -> bool {
        let worked = self.since.zip(self.ended);
        let worked = worked.map_or(Duration::ZERO, |(since, ended)| since - ended);
        self.short >= IN_A_ROW
            && worked < window.mul_f64(LITTLE_WORK)
            && self.rests_until.is_none_or(|until| now >= until)
    }

    fn asked(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Found => {
                self.since = None;
                self.ended = Some(now);
            }
            Outcome::Nothing => self.short = 0,
            Outcome::Displaced(away) => {
                self.short = 0;
                self.rests_until = Some(now + away * REST);
            }
        }
    }

    /// The thread was woken, unless it had no need to sleep.
    fn end(&mut self, now: Instant, window: Duration) {
        let Some(since) = self.since.take() else {
            return;
        };
        self.ended = Some(now);
        // Of a sleep, being woken is a part that asking doesn't have.
        if now - since < window * 3 / 2 {
            self.short = self.short.saturating_add(1);
        } else {
            self.short = 0;
        }
    }
}

#[cfg(test)]
mod tests;
