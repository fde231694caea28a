//! `ambit.v1.NodeReports`: how a node's agent tells control what became of its pods. Over the authority's channel,
//! since caller and server are known there.
//!
//! ```text
//! service NodeReports { rpc ReportPods(PodReport) returns (PodReportTaken); }
//! ```

/// The one method's path.
pub(super) const REPORT_PODS: &str = "/ambit.v1.NodeReports/ReportPods";

/// Pods that one report has at most: with names and texts as long as they may be, control still reads it.
pub const MAX_PODS: usize = 64;

/// What became of pods of the caller's node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodReport {
    /// Pods of which there is something new.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodState>,
    /// Whether `asked` says all.
    #[prost(bool, tag = "2")]
    pub is_complete: bool,
    /// The uids of all pods of the node that are asked into the mesh.
    #[prost(string, repeated, tag = "3")]
    pub asked: Vec<String>,
}

/// What became of one pod.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodState {
    /// `metadata.uid`.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// `metadata.namespace`.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// `metadata.name`.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Whether its traffic is the mesh's.
    #[prost(bool, tag = "4")]
    pub enrolled: bool,
    /// Why or why not, in one word.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// The same in a sentence.
    #[prost(string, tag = "6")]
    pub message: String,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PodReportTaken {}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::identity::wire::MAX_MESSAGE;

    #[test]
    fn the_largest_report_is_read() {
        let state = PodState {
            uid: "u".repeat(36),
            namespace: "n".repeat(63),
            name: "p".repeat(253),
            enrolled: true,
            reason: "r".repeat(64),
            message: "m".repeat(512),
        };
        let report = PodReport {
            pods: vec![state; MAX_PODS],
            ..PodReport::default()
        };
        assert!(
            report.encoded_len() < MAX_MESSAGE,
            "{}",
            report.encoded_len()
        );
    }
}
