//! Gauges of what is open.

use prometheus::IntGauge;

/// One open thing, counted in a gauge until this is dropped.
#[derive(Debug)]
pub struct OpenCount {
    gauge: IntGauge,
}

impl OpenCount {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self { gauge }
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
