//! Spans as OTLP has them.

pub(in crate::telemetry) use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Status, status::StatusCode},
};

/// Attributes of a span or resource.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(in crate::telemetry) fn text(self, key: &str, value: impl Into<String>) -> Self {
        self.with(key, Value::StringValue(value.into()))
    }

    pub(in crate::telemetry) fn number(self, key: &str, value: impl TryInto<i64>) -> Self {
        let value = value.try_into().unwrap_or(i64::MAX);
        self.with(key, Value::IntValue(value))
    }

    /// Nothing, if there is no value.
    pub(in crate::telemetry) fn text_if(self, key: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.0.push(KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
        self
    }
}

impl From<Attributes> for Vec<KeyValue> {
    fn from(attributes: Attributes) -> Self {
        attributes.0
    }
}

/// A span's status, which only an error has: what went well is for applications to say.
pub(in crate::telemetry) fn status(error: Option<String>) -> Option<Status> {
    error.map(|message| Status {
        message,
        code: StatusCode::Error.into(),
    })
}
