//! What is answered.

use serde::{Deserialize, Serialize};

use super::Question;

/// The steps of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who connects, as it was understood.
    pub source: String,
    /// What to, as it was understood.
    pub destination: String,
    /// The node whose agent answers.
    pub node: String,
    /// In the order in which a connection meets them.
    pub steps: Vec<Step>,
    /// The subject of the first step that fails. `None`: connections come about, as far as is known here.
    pub fails_at: Option<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is about, in a word or two.
    pub subject: String,
    /// How it stands.
    pub state: State,
    /// What was found, in words.
    pub text: String,
    /// What would mend it, if it fails or isn't known.
    pub cure: Option<String>,
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should.
    Ok,
    /// Connections end here.
    Fails,
    /// Neither good nor bad, and worth knowing.
    Note,
    /// Nobody here can tell.
    Unknown,
}

impl Step {
    pub(super) fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self::new(subject, State::Ok, text, None)
    }

    pub(super) fn note(subject: &str, text: impl Into<String>) -> Self {
        Self::new(subject, State::Note, text, None)
    }

    pub(super) fn unknown(subject: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(subject, State::Unknown, text, Some(cure.into()))
    }

    pub(super) fn fails(subject: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(subject, State::Fails, text, Some(cure.into()))
    }

    fn new(subject: &str, state: State, text: impl Into<String>, cure: Option<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            state,
            text: text.into(),
            cure,
        }
    }
}

impl Explanation {
    pub(super) fn new(question: &Question, node: &str, steps: Vec<Step>) -> Self {
        let failing = steps.iter().find(|step| step.state == State::Fails);
        Self {
            source: question.source.to_string(),
            destination: question.destination.to_string(),
            node: node.to_owned(),
            fails_at: failing.map(|step| step.subject.clone()),
            steps,
        }
    }
}
