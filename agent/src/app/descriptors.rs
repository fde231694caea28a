//! How many file descriptors the process may have, and for how many connections they do.

use rustix::process::{Resource, getrlimit, setrlimit};

/// One for each end.
const PER_CONNECTION: u64 = 2;
/// Programs, maps, endpoints of our own, calls of the authority.
const RESERVED: u64 = 256;
/// Of all, for tunnels without a connection and what is being refused: one in so many.
const SPARE: u64 = 8;

/// Raises the soft limit to the hard one, which is there to be used: service managers set the soft one
/// low for programs that use select(2).
pub(super) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open file descriptors: {error}");
    }
}

/// As [`raise`]; `wanted`, or as many connections as there are descriptors for.
pub(super) fn connections(wanted: usize) -> usize {
    raise();
    let Some(descriptors) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let enough = fitting(descriptors);
    if enough >= wanted {
        return wanted;
    }
    tracing::warn!(
        "{descriptors} open file descriptors are this process's limit, enough for {enough} connections and not \
         for --max-connections {wanted}: more are refused. Its service or container runtime sets it \
         (LimitNOFILE=, ulimit -n)"
    );
    enough
}

fn fitting(descriptors: u64) -> usize {
    let usable = (descriptors - descriptors / SPARE).saturating_sub(RESERVED);
    usize::try_from(usable / PER_CONNECTION)
        .unwrap_or(usize::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn connections_leave_descriptors_for_all_else() {
        for (descriptors, connections) in [
            (0, 1),
            (256, 1),
            (1_024, 320),
            (65_536, 28_544),
            (1_048_576, 458_624),
        ] {
            assert_eq!(fitting(descriptors), connections, "{descriptors}");
        }
    }
}
