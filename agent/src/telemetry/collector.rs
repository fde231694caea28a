//! Metrics that are read at scrape time, with labels in the order that they are declared in.
//!
//! The prometheus crate's own vectors sort labels by name and never forget a series; these keep
//! Istio's order, and a series is gone as soon as the reader no longer yields it.

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// A metric's constant part.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
}

/// What a value means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Only grows, until the agent or the series starts anew.
    Counter,
    /// May fall.
    Gauge,
    /// Counts values between bounds.
    Histogram,
}

impl Family {
    fn desc(&self) -> Result<Desc, prometheus::Error> {
        let labels = self.labels.iter().map(ToString::to_string).collect();
        Desc::new(self.name.into(), self.help.into(), labels, <_>::default())
    }

    /// The family with these samples: a label value for each label, and the value.
    pub(super) fn of<L, V>(&self, samples: impl IntoIterator<Item = (L, f64)>) -> MetricFamily
    where
        L: IntoIterator<Item = V>,
        V: Into<String>,
    {
        let fill = |metric: &mut Metric, value| match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        };
        self.filled(samples, fill)
    }

    /// The family, of histograms, with these samples.
    pub(super) fn histograms<L, V>(
        &self,
        samples: impl IntoIterator<Item = (L, Histogram)>,
    ) -> MetricFamily
    where
        L: IntoIterator<Item = V>,
        V: Into<String>,
    {
        self.filled(samples, Metric::set_histogram)
    }

    fn filled<L, V, T>(
        &self,
        samples: impl IntoIterator<Item = (L, T)>,
        fill: impl Fn(&mut Metric, T),
    ) -> MetricFamily
    where
        L: IntoIterator<Item = V>,
        V: Into<String>,
    {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let pairs = self.labels.iter().zip(labels).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).into());
                pair.set_value(value.into());
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            fill(&mut metric, value);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_metric(metrics.collect());
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family
    }

    /// The family with one sample that has no labels.
    pub(super) fn single(&self, value: f64) -> MetricFamily {
        self.of([([""; 0], value)])
    }
}

/// Calls a closure at each scrape.
pub(super) struct Observed<F> {
    descs: Vec<Desc>,
    read: F,
}

impl<F: Fn() -> Vec<MetricFamily>> Observed<F> {
    /// A collector of `families`, whose samples `read` yields.
    ///
    /// # Errors
    /// A family whose name or labels Prometheus doesn't allow.
    pub(super) fn new(families: &[&Family], read: F) -> Result<Self, prometheus::Error> {
        let descs = families.iter().map(|family| family.desc());
        Ok(Self {
            descs: descs.collect::<Result<_, _>>()?,
            read,
        })
    }
}

impl<F: Fn() -> Vec<MetricFamily> + Send + Sync> Collector for Observed<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.read)()
    }
}
