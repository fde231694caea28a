//! Faults that are put into requests on purpose.

use std::time::Duration;

use http::HeaderMap;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::discovery::model::{FaultPolicy, FaultShare};

/// What is to be done to a request: first it waits, then it is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// How long it has to wait; `None`: not at all.
    pub delay: Option<Duration>,
    /// The answer that it gets; `None`: it goes on.
    pub abort: Option<Abort>,
}

/// The answer to a request that is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// HTTP status, 200 to 599. Not of gRPC requests that have a status of their own.
    pub status: u16,
    /// gRPC status of gRPC requests, 1 to 16.
    pub grpc_status: Option<u8>,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The request waits.
    Delay,
    /// It is answered with an error.
    Abort,
}

impl FaultKind {
    /// For metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Abort => "abort",
        }
    }
}

/// What happens to a request with these headers. `random` is any random number.
pub(super) fn fault(policy: &FaultPolicy, headers: &HeaderMap, random: u64) -> Fault {
    let mut random = SmallRng::seed_from_u64(random);
    let mut applies = |share: &FaultShare| {
        let drawn = random.random_range(0..100) < share.percentage;
        let has = |(name, value)| headers.get_all(name).iter().any(|found| found == value);
        drawn && share.headers.iter().all(|(name, value)| has((name, value)))
    };
    let delay = policy
        .delay
        .as_ref()
        .filter(|delay| applies(&delay.applies));
    let abort = policy
        .abort
        .as_ref()
        .filter(|abort| applies(&abort.applies));
    Fault {
        delay: delay.map(|delay| delay.duration),
        abort: abort.map(|abort| Abort {
            status: abort.status,
            grpc_status: abort.grpc_status,
        }),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::discovery::model::{FaultAbort, FaultDelay};

    const WAIT: Duration = Duration::from_millis(250);

    fn share(percentage: u32, headers: &[(&'static str, &'static str)]) -> FaultShare {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        FaultShare {
            percentage,
            headers: headers.collect(),
        }
    }

    fn policy(delay: Option<FaultShare>, abort: Option<FaultShare>) -> FaultPolicy {
        FaultPolicy {
            delay: delay.map(|applies| FaultDelay {
                duration: WAIT,
                applies,
            }),
            abort: abort.map(|applies| FaultAbort {
                status: 503,
                grpc_status: Some(14),
                applies,
            }),
        }
    }

    #[test]
    fn faults_go_by_header_and_percentage() {
        let mut headers = HeaderMap::new();
        headers.append("x-test", HeaderValue::from_static("chaos"));
        headers.append("x-test", HeaderValue::from_static("monkey"));
        let all = || share(100, &[]);
        let monkey = || share(100, &[("x-test", "monkey")]);
        let both = || share(100, &[("x-test", "monkey"), ("x-user", "tester")]);
        for (what, policy, delayed, aborted) in [
            ("no fault", policy(None, None), false, false),
            ("all are delayed", policy(Some(all()), None), true, false),
            ("all are aborted", policy(None, Some(all())), false, true),
            (
                "delayed, then aborted",
                policy(Some(all()), Some(all())),
                true,
                true,
            ),
            (
                "none",
                policy(Some(share(0, &[])), Some(share(0, &[]))),
                false,
                false,
            ),
            (
                "any of a header's values",
                policy(Some(monkey()), None),
                true,
                false,
            ),
            (
                "a header is missing",
                policy(Some(both()), Some(monkey())),
                false,
                true,
            ),
        ] {
            for random in 0..50 {
                let fault = fault(&policy, &headers, random);
                assert_eq!(fault.delay, delayed.then_some(WAIT), "{what}");
                let abort = Abort {
                    status: 503,
                    grpc_status: Some(14),
                };
                assert_eq!(fault.abort, aborted.then_some(abort), "{what}");
            }
        }
    }

    #[test]
    fn percentages_are_met_and_of_each_other_independent() {
        let policy = policy(Some(share(50, &[])), Some(share(20, &[])));
        let headers = HeaderMap::new();
        let faults: Vec<Fault> = (0..10_000)
            .map(|random| fault(&policy, &headers, random))
            .collect();
        let count = |of: &dyn Fn(&Fault) -> bool| faults.iter().filter(|fault| of(fault)).count();
        let delayed = count(&|fault| fault.delay.is_some());
        let aborted = count(&|fault| fault.abort.is_some());
        let both = count(&|fault| fault.delay.is_some() && fault.abort.is_some());
        assert!((4_700..5_300).contains(&delayed), "{delayed}");
        assert!((1_800..2_200).contains(&aborted), "{aborted}");
        assert!((850..1_150).contains(&both), "{both}");
    }
}
