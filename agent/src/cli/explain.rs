//! `ambit explain`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{operator::Ask, table::printable};
use crate::explain::{Explanation, State, Step};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who connects: NAMESPACE/POD, NAMESPACE/NAME of a Deployment and the like, or an address.
    source: String,
    /// What to: NAMESPACE/SERVICE or its DNS name, NAMESPACE/POD, or an address, with `:PORT` (a number, or
    /// a service port's name) unless it's a service with one port.
    destination: String,
    #[command(flatten)]
    ask: Ask,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let mut question = form_urlencoded::Serializer::new(String::new());
    question.append_pair("source", &arguments.source);
    question.append_pair("destination", &arguments.destination);
    let agent = arguments.ask.agent();
    let explanation: Explanation = agent.ask_about("explain", &question.finish()).await?;
    arguments.ask.show(&explanation, text)
}

/// A line for each step, one more for its cure, and what comes of it.
fn text(explanation: &Explanation) -> String {
    let Explanation {
        source,
        destination,
        node,
        steps,
        fails_at,
    } = explanation;
    let subjects = steps.iter().map(|step| step.subject.chars().count());
    let width = subjects.max().unwrap_or(0);
    let mut text = format!("{source} -> {destination}, asked on node {node}\n\n");
    for step in steps {
        line(&mut text, step, width);
    }
    let outcome = match fails_at {
        Some(subject) => format!("Connections fail. First look at: {subject}"),
        None if steps.iter().any(|step| step.state == State::Unknown) => {
            format!("Connections come about, as far as node {node} knows")
        }
        None => "Connections come about".to_owned(),
    };
    text + "\n" + &printable(outcome) + "\n"
}

fn line(text: &mut String, step: &Step, width: usize) {
    let state = match step.state {
        State::Ok => "ok",
        State::Fails => "FAILS",
        State::Note => "-",
        State::Unknown => "?",
    };
    let subject = printable(step.subject.clone());
    let said = printable(step.text.clone());
    // Writing to a string can't fail.
    let _ = writeln!(text, "{state:5}  {subject:width$}  {said}");
    if let Some(cure) = &step.cure {
        let _ = writeln!(
            text,
            "{:7}{:width$}  -> {}",
            "",
            "",
            printable(cure.clone())
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(subject: &str, state: State, text: &str, cure: Option<&str>) -> Step {
        Step {
            subject: subject.into(),
            state,
            text: text.into(),
            cure: cure.map(Into::into),
        }
    }

    fn explanation(steps: Vec<Step>, fails_at: Option<&str>) -> Explanation {
        Explanation {
            source: "shop/web".into(),
            destination: "shop/till:80".into(),
            node: "a".into(),
            steps,
            fails_at: fails_at.map(Into::into),
        }
    }

    #[test]
    fn each_step_has_a_line_and_its_cure_another() {
        let steps = vec![
            step("source", State::Ok, "pod shop/web", None),
            step("kernel verdict", State::Note, "nothing decided", None),
            step("policy", State::Fails, "no\nrule", Some("add one")),
        ];
        let expected = "\
shop/web -> shop/till:80, asked on node a

ok     source          pod shop/web
-      kernel verdict  nothing decided
FAILS  policy          no rule
                       -> add one

Connections fail. First look at: policy
";
        assert_eq!(text(&explanation(steps, Some("policy"))), expected);
    }

    #[test]
    fn what_isnt_known_here_isnt_claimed() {
        let known = step("source", State::Ok, "pod shop/web", None);
        let told = text(&explanation(vec![known.clone()], None));
        assert!(told.ends_with("\n\nConnections come about\n"), "{told}");
        let unknown = step("capture", State::Unknown, "node b knows", None);
        let told = text(&explanation(vec![known, unknown], None));
        assert!(told.ends_with("as far as node a knows\n"), "{told}");
    }
}
