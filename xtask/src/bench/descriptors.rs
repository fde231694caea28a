//! How many file descriptors the programs that are measured may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `idle-10000` takes up to three for each connection in one proxy. Runtimes give containers more, but not every
/// login does.
const WANTED: u64 = 65_536;

/// Lets this process, and all that it starts, have enough of them. A higher limit stays.
///
/// # Errors
/// The kernel's refusal: the hard limit is lower, and this process may not raise it.
pub(super) fn allow() -> io::Result<()> {
    Ok(setrlimit(
        Resource::Nofile,
        raised(getrlimit(Resource::Nofile)),
    )?)
}

fn raised(limit: Rlimit) -> Rlimit {
    // `None` is without limit.
    let at_least = |bound: Option<u64>| bound.map(|bound| bound.max(WANTED));
    Rlimit {
        current: at_least(limit.current),
        maximum: at_least(limit.maximum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        for (before, after) in [
            ((Some(1024), Some(4096)), (Some(WANTED), Some(WANTED))),
            ((Some(1024), Some(1 << 20)), (Some(WANTED), Some(1 << 20))),
            ((Some(1 << 20), None), (Some(1 << 20), None)),
        ] {
            let limit = Rlimit {
                current: before.0,
                maximum: before.1,
            };
            let raised = raised(limit);
            assert_eq!((raised.current, raised.maximum), after);
        }
    }
}
