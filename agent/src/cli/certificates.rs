//! `ambit certificates`.

use anyhow::Result;
use jiff::Timestamp;

use super::{
    operator::Ask,
    table::{self, NOTHING, Table},
};
use crate::admin::CertificateView;

pub(super) async fn run(ask: Ask) -> Result<()> {
    let mut certificates: Vec<CertificateView> = ask.agent().ask("certificates").await?;
    certificates.sort_by(|a, b| a.identity.cmp(&b.identity));
    let now = Timestamp::now();
    ask.show_list(
        &certificates,
        |certificates| table(certificates, now),
        || "the agent holds no certificates: no pod of this node is enrolled".to_owned(),
    )
}

fn table(certificates: &[CertificateView], now: Timestamp) -> Table<5> {
    let headers = ["IDENTITY", "STATE", "EXPIRES", "SERIAL", "LAST ERROR"];
    let row = |certificate: &CertificateView| {
        let end = certificate.end();
        let state = match end {
            None => "not issued",
            Some(end) if end <= now => "expired",
            Some(_) => "valid",
        };
        [
            table::identity(&certificate.identity),
            state.to_owned(),
            end.map_or(NOTHING.to_owned(), |end| table::distance(end, now)),
            table::known(&certificate.serial),
            table::known(&certificate.error),
        ]
    };
    Table::new(headers, certificates.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_shown_with_their_state() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let table_of = [
            ("a", Some("2030-01-01T12:00:00Z"), None),
            ("b", Some("2029-12-31T23:59:57.5Z"), Some("refused:\nno")),
            ("c", None, Some("no answer")),
        ];
        let certificates = table_of.map(|(account, end, error)| CertificateView {
            identity: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
            serial: end.map(|_| "0a1b".into()),
            not_before: None,
            not_after: end.map(Into::into),
            error: error.map(Into::into),
        });
        let expected = "\
IDENTITY                     STATE        EXPIRES    SERIAL   LAST ERROR
cluster.local/ns/shop/sa/a   valid        in 12h0m   0a1b     -
cluster.local/ns/shop/sa/b   expired      3s ago     0a1b     refused: no
cluster.local/ns/shop/sa/c   not issued   -          -        no answer
";
        assert_eq!(table(&certificates, now).to_string(), expected);
    }
}
