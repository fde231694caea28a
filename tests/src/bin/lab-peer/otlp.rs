//! A collector of OpenTelemetry's: takes spans by OTLP over gRPC, and reports each.

use std::collections::BTreeMap;

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::Span,
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::{Server, asynchronous, report};

/// Serves for ever; a report a span.
pub(crate) fn serve(server: &Server) -> anyhow::Result<()> {
    asynchronous::serve(server, |stream, _| async {
        let service = TowerToHyperService::new(TraceServiceServer::new(Collector));
        // How a connection ends is the client's to tell.
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
}

struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let resource = attributes(&resource.attributes);
            for span in of_resource
                .scope_spans
                .iter()
                .flat_map(|of_scope| &of_scope.spans)
            {
                let _ = report(&told(span, &resource));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn told(span: &Span, resource: &Value) -> Value {
    json!({
        "name": span.name,
        "kind": span.kind,
        "trace_id": hex(&span.trace_id),
        "span_id": hex(&span.span_id),
        "parent_span_id": hex(&span.parent_span_id),
        "trace_state": span.trace_state,
        "attributes": attributes(&span.attributes),
        "error": span.status.as_ref().map(|status| &status.message),
        "resource": resource,
    })
}

fn attributes(all: &[KeyValue]) -> Value {
    let pairs = all.iter().map(|attribute| {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        let value = match value {
            Some(Any::StringValue(text)) => json!(text),
            Some(Any::IntValue(number)) => json!(number),
            other => json!(format!("{other:?}")),
        };
        (attribute.key.clone(), value)
    });
    json!(pairs.collect::<BTreeMap<_, _>>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
