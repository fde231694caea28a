//! Whether a waypoint has anything to do.

use super::{Direction, Metrics};

/// What goes through a waypoint. Two looks tell rest from a pause between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Requests so far, those under way included.
    pub requests: u64,
    /// Requests that are under way, and open connections whose bytes are passed on as they are. A connection of
    /// HTTP without a request counts for nothing.
    pub under_way: u64,
}

impl Activity {
    /// Whether nothing is under way now, and nothing was asked since an earlier look.
    #[must_use]
    pub fn is_rest_since(self, before: Self) -> bool {
        self.under_way == 0 && self.requests == before.requests
    }
}

impl Metrics {
    /// As it is now.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let through = [Direction::Through.as_str()];
        let open = self.connections_open.with_label_values(&through).get();
        let (requests, under_way) = self.requests.activity();
        Activity {
            requests,
            under_way: under_way + u64::try_from(open).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_when_nothing_was_asked_and_nothing_is_under_way() {
        let of = |requests, under_way| Activity {
            requests,
            under_way,
        };
        for (before, now, expected) in [
            (of(0, 0), of(0, 0), true),
            (of(7, 0), of(7, 0), true),
            // It has ended meanwhile.
            (of(7, 1), of(7, 0), true),
            (of(7, 1), of(7, 1), false),
            (of(7, 0), of(8, 1), false),
            // All were answered between two looks.
            (of(7, 0), of(9, 0), false),
        ] {
            assert_eq!(now.is_rest_since(before), expected, "{before:?} {now:?}");
        }
    }
}
