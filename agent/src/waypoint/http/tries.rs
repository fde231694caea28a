//! What came of sending a request, and whether it is sent again. Pure, but for the clock.

use std::time::Duration;

use http::{Response, StatusCode, request};
use tokio::time::Instant;

use super::{body::Source, reply::Reply, under_way::Revoked, upstream::UpstreamBody};
use crate::{
    discovery::model::Retry,
    telemetry::RequestFlags,
    waypoint::resilience::{Overload, Verdict},
};

/// Other endpoints that are tried where one can't be reached, if no route says anything of retries.
const OTHERS: u32 = 2;
/// From one try to the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What came of one try.
pub(super) enum Tried {
    Answered(Box<Response<UpstreamBody>>),
    /// Nothing of it has reached a server: the request as it was, until it is taken, and why.
    Unsent(Option<Box<request::Parts>>, String),
    /// It was sent, and no answer came.
    Broken(String),
    /// No connection may be opened for it.
    Overloaded(Overload),
    /// It took too long.
    Late,
    /// It is allowed no longer.
    Revoked(Box<Revoked>),
}

/// How often a request is sent, and for how long.
pub(super) struct Tries {
    /// Until when all of it may take.
    pub(super) whole: Option<Instant>,
    /// How long one try may take.
    pub(super) each: Option<Duration>,
    pub(super) retry: Option<Retry>,
    /// It does no harm to send it twice.
    pub(super) may_repeat: bool,
}

impl Tries {
    /// Until when a try that begins now may take.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let each = self.each.map(|limit| Instant::now() + limit);
        [self.whole, each].into_iter().flatten().min()
    }

    /// Whether this should be tried once more after so many tries.
    pub(super) fn again(&self, outcome: &Tried, tries: usize, source: &Source) -> bool {
        let most = self.retry.as_ref().map_or(OTHERS, |retry| retry.attempts);
        let is_left = u32::try_from(tries).unwrap_or(u32::MAX) <= most;
        if !is_left || self.whole.is_some_and(|whole| Instant::now() >= whole) {
            return false;
        }
        match outcome {
            Tried::Unsent(..) => true,
            Tried::Broken(_) => self.may_repeat && source.is_whole(),
            Tried::Overloaded(_) | Tried::Revoked(_) => false,
            Tried::Late => self.retry.is_some() && source.is_whole(),
            Tried::Answered(answer) => {
                let codes = self.retry.as_ref().map_or(&[][..], |retry| &retry.codes);
                codes.contains(&answer.status()) && source.is_whole()
            }
        }
    }

    /// How long to wait before the next try: between half and one and a half times the route's backoff, twice as
    /// long each time.
    pub(super) fn pause(&self, tries: usize) -> Duration {
        let Some(retry) = &self.retry else {
            return Duration::ZERO;
        };
        let doubled = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        let backoff = retry.backoff.saturating_mul(2_u32.saturating_pow(doubled));
        backoff
            .min(LONGEST_PAUSE)
            .mul_f64(rand::random_range(0.5..1.5))
    }
}

impl Tried {
    /// The request, if it was never sent.
    pub(super) fn take_unsent(&mut self) -> Option<request::Parts> {
        match self {
            Self::Unsent(parts, _) => parts.take().map(|parts| *parts),
            Self::Answered(..)
            | Self::Broken(_)
            | Self::Overloaded(_)
            | Self::Late
            | Self::Revoked(_) => None,
        }
    }

    /// `None`: it says nothing of the endpoint.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        Some(match self {
            Self::Overloaded(_) | Self::Revoked(_) => return None,
            Self::Answered(answer) if !answer.status().is_server_error() => Verdict::Success,
            Self::Answered(..) | Self::Broken(_) | Self::Late => Verdict::Error,
            Self::Unsent(..) => Verdict::ConnectFailed,
        })
    }

    /// What the client is answered; `refuse` says it where a request is allowed no longer.
    pub(super) fn reply(self, refuse: impl FnOnce(&Revoked) -> Reply) -> Reply {
        let (status, flags, text, reason) = match self {
            Self::Revoked(revoked) => return refuse(&revoked),
            Self::Overloaded(overload) => return overloaded(overload),
            Self::Unsent(_, reason) => (
                StatusCode::SERVICE_UNAVAILABLE,
                RequestFlags::UPSTREAM_CONNECT_FAILED,
                "upstream connect error",
                reason,
            ),
            Self::Broken(reason) => (
                StatusCode::SERVICE_UNAVAILABLE,
                RequestFlags::UPSTREAM_TERMINATED,
                "upstream disconnected before it answered",
                reason,
            ),
            Self::Late | Self::Answered(..) => (
                StatusCode::GATEWAY_TIMEOUT,
                RequestFlags::UPSTREAM_TIMEOUT,
                "upstream request timeout",
                "the route's timeout has passed".to_owned(),
            ),
        };
        Reply::new(status, text).flagged(flags).because(reason)
    }
}

pub(super) fn overloaded(overload: Overload) -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "upstream overloaded")
        .flagged(RequestFlags::UPSTREAM_OVERFLOW)
        .because(overload.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(retry: Option<Retry>) -> Tries {
        Tries {
            whole: None,
            each: None,
            retry,
            may_repeat: false,
        }
    }

    #[test]
    fn pauses_double_from_the_routes_backoff_and_have_a_bound() {
        let backoff = Duration::from_millis(100);
        let retried = tries(Some(Retry {
            codes: vec![StatusCode::BAD_GATEWAY],
            attempts: 10,
            backoff,
        }));
        for (tries, mean) in [(1, 100), (2, 200), (4, 800), (10, 10_000)] {
            let mean = Duration::from_millis(mean);
            for _ in 0..50 {
                let pause = retried.pause(tries);
                assert!(
                    pause >= mean / 2 && pause <= mean * 3 / 2,
                    "{tries}: {pause:?}"
                );
            }
        }
        assert_eq!(tries(None).pause(3), Duration::ZERO);
    }

    #[test]
    fn what_was_never_sent_goes_to_others_twice_and_what_was_sent_only_if_it_does_no_harm() {
        let unsent = || Tried::Unsent(None, "refused".into());
        let broken = || Tried::Broken("reset".into());
        let source = Source::nothing();
        let repeatable = Tries {
            may_repeat: true,
            ..tries(None)
        };
        for (tries, outcome, made, expected) in [
            (tries(None), unsent(), 1, true),
            (tries(None), unsent(), 2, true),
            (tries(None), unsent(), 3, false),
            (tries(None), broken(), 1, false),
            (repeatable, broken(), 1, true),
            (tries(None), Tried::Late, 1, false),
        ] {
            assert_eq!(tries.again(&outcome, made, &source), expected, "{made}");
        }
    }
}
