//! `ambit problems`.

use anyhow::Result;

use super::{
    operator::Ask,
    table::{self, Table},
};
use crate::admin::ProblemView;

pub(super) async fn run(ask: Ask) -> Result<()> {
    let mut problems: Vec<ProblemView> = ask.agent().ask("problems").await?;
    problems.sort_by(|a, b| (&a.object, &a.field).cmp(&(&b.object, &b.field)));
    ask.show_list(&problems, table, || {
        "there are no problems: every object is used as it is".to_owned()
    })
}

fn table(problems: &[ProblemView]) -> Table<4> {
    let headers = ["OBJECT", "FIELD", "SOURCE", "PROBLEM"];
    let row = |problem: &ProblemView| {
        [
            table::known(&problem.object),
            table::known(&problem.field),
            problem.source.clone(),
            problem.message.clone(),
        ]
    };
    Table::new(headers, problems.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_its_object_and_field() {
        let problem = |object: Option<&str>, field: Option<&str>, message: &str| ProblemView {
            source: "shop.yaml".into(),
            object: object.map(Into::into),
            field: field.map(Into::into),
            message: message.into(),
        };
        let problems = [
            problem(None, None, "can't be read"),
            problem(
                Some("AuthorizationPolicy shop/few"),
                Some("spec.action"),
                "no\nsuch",
            ),
        ];
        let expected = "\
OBJECT                         FIELD         SOURCE      PROBLEM
-                              -             shop.yaml   can't be read
AuthorizationPolicy shop/few   spec.action   shop.yaml   no such
";
        assert_eq!(table(&problems).to_string(), expected);
    }
}
