//! Waiting for sockets and for points in time, at the least cost: epoll and a timer.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

/// How many events one wait can bring.
const EVENTS: usize = 256;
/// The timer's own token.
const TIMER: u64 = u64::MAX;
/// A second, in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// What a socket is watched for.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    /// There is something to read, until it has been read.
    Read,
    /// There is room to write, as long as there is.
    Write,
    /// Each change in either direction, once.
    Changes,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        }
    }
}

/// What a wait brought.
pub(crate) type Events = Vec<Event>;

/// Room for the events of one wait.
pub(crate) fn events() -> Events {
    Vec::with_capacity(EVENTS)
}

/// The token of a socket, none if the event is the timer's.
pub(crate) fn token(event: &Event) -> Option<usize> {
    match event.data.u64() {
        TIMER => None,
        token => usize::try_from(token).ok(),
    }
}

/// An epoll instance with one timer.
///
/// The timer is a timerfd: its time is absolute, so that it need not be set again before each wait,
/// and it has no slack (a timeout of epoll itself may be 50 us late).
pub(crate) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: u64,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        // Edge-triggered, an expiry is told once without having to be read.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), flags)?;
        Ok(Self {
            epoll,
            timer,
            armed: u64::MAX,
        })
    }

    /// Watches a socket until it is closed.
    pub(crate) fn add(
        &self,
        socket: impl AsFd,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let token = EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, socket, token, interest.flags())?)
    }

    /// Watches a socket for something else.
    pub(crate) fn change(
        &self,
        socket: impl AsFd,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let token = EventData::new_u64(token as u64);
        Ok(epoll::modify(&self.epoll, socket, token, interest.flags())?)
    }

    /// Waits for events, until `deadline` (as of [`now`]) at the latest.
    pub(crate) fn wait_until(&mut self, events: &mut Events, deadline: u64) -> io::Result<()> {
        if deadline != self.armed {
            let it_value = Timespec {
                tv_sec: i64::try_from(deadline / SECOND).map_err(io::Error::other)?,
                tv_nsec: i64::try_from(deadline % SECOND).map_err(io::Error::other)?,
            };
            let time = Itimerspec {
                it_interval: Timespec::default(),
                it_value,
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
            self.armed = deadline;
        }
        self.wait(events)
    }

    /// Waits for events.
    pub(crate) fn wait(&self, events: &mut Events) -> io::Result<()> {
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
