//! `/observe`, to clients that read, dawdle, are too many, or go.

use tokio::io::{AsyncBufReadExt, BufReader, Lines};

use super::*;
use crate::telemetry::{
    ConnectionReport, Outcome,
    fixtures::{description, value},
    flows::MOST_OBSERVERS,
};

const DEADLINE: Duration = Duration::from_secs(30);

async fn serve(metrics: &Arc<Metrics>) -> Served<Result<(), AdminError>> {
    let source = Arc::new(Fixed {
        metrics: metrics.clone(),
        facts: MadeUp::default(),
    });
    let (_, log) = subscriber(LogFormat::Text, "info", Written::default()).unwrap();
    let limits = Limits {
        deadline: Duration::from_secs(1),
        ..Limits::default()
    };
    Served::start(|listener, stop| serve_admin(listener, source, log, limits, stop)).await
}

fn connect(metrics: &Arc<Metrics>) {
    ConnectionReport::open(metrics, description(), Arc::default()).finish(Outcome::Complete);
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, met).await.expect(what);
}

fn observers(metrics: &Metrics) -> Option<f64> {
    value(metrics, "ambit_observers", &[])
}

/// The next line that is JSON; HTTP's own lines between are passed over.
async fn event(lines: &mut Lines<BufReader<TcpStream>>) -> Value {
    loop {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        let line = line.expect("a line").unwrap().expect("no end");
        if let Ok(Value::Object(event)) = serde_json::from_str(&line) {
            return Value::Object(event);
        }
    }
}

#[tokio::test]
async fn lines_come_as_things_happen_and_long_after_the_deadline_of_other_answers() {
    let metrics = metrics();
    let server = serve(&metrics).await;
    let held = ConnectionReport::open(&metrics, description(), Arc::default());
    let mut lines = BufReader::new(server.ask("GET", "/observe").await).lines();
    assert_eq!(event(&mut lines).await["event"], "open");
    // Beyond the deadline, which this waits for on purpose.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    held.finish(Outcome::Complete);
    let closed = event(&mut lines).await;
    assert_eq!(closed["event"], "closed");
    assert_eq!(closed["verdict"], "allowed");
    // It ends with the server, in order.
    server.cancellation.cancel();
    while let Some(line) = lines.next_line().await.unwrap() {
        assert!(!line.contains("event"), "{line}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn who_dawdles_is_told_how_many_events_are_missing() {
    const CONNECTIONS: u64 = 25_000;
    let metrics = metrics();
    let server = serve(&metrics).await;
    let stream = server.ask("GET", "/observe").await;
    eventually("an observer", || observers(&metrics) == Some(1.0)).await;
    for number in 0..CONNECTIONS {
        connect(&metrics);
        if number % 100 == 0 {
            // The server may write what it can.
            tokio::task::yield_now().await;
        }
    }
    let lost = || value(&metrics, "ambit_observed_events_lost_total", &[]).unwrap();
    let missing = lost();
    assert!(missing > 0.0);
    // Now it reads.
    let mut lines = BufReader::new(stream).lines();
    let (mut seen, mut told) = (0, 0);
    while seen + told < 2 * CONNECTIONS {
        match event(&mut lines).await["lost"].as_u64() {
            Some(lost) => told += lost,
            None => seen += 1,
        }
    }
    assert_eq!((seen + told, told as f64), (2 * CONNECTIONS, missing));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn one_too_many_is_refused_and_who_goes_makes_room() {
    let metrics = metrics();
    let server = serve(&metrics).await;
    let mut places = Vec::new();
    for _ in 0..MOST_OBSERVERS {
        places.push(server.ask("GET", "/observe").await);
    }
    let all = Some(MOST_OBSERVERS as f64);
    eventually("all to observe", || observers(&metrics) == all).await;
    let (status, body) = server.request("GET", "/observe").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("8 observe already, which is the limit: end one"));
    // Nothing happens that the server could fail to write.
    places.pop();
    let fewer = Some((MOST_OBSERVERS - 1) as f64);
    eventually("a free place", || observers(&metrics) == fewer).await;
    let mut lines = BufReader::new(server.ask("GET", "/observe").await).lines();
    eventually("all to observe", || observers(&metrics) == all).await;
    connect(&metrics);
    assert_eq!(event(&mut lines).await["event"], "opened");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_filter_that_is_not_understood_is_refused() {
    let server = serve(&metrics()).await;
    let (status, body) = server.request("GET", "/observe?node=a").await;
    assert_eq!(status, 400);
    assert!(body.starts_with("there is no parameter \"node\""), "{body}");
    assert_eq!(server.request("PUT", "/observe").await.0, 405);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn other_sites_are_kept_out_and_answers_kept_in() {
    let server = serve(&metrics()).await;
    let ask = |head: &'static str| {
        let connecting = server.connect();
        async move {
            let mut stream = connecting.await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        }
    };
    for (head, status) in [
        ("GET /status HTTP/1.1\r\nhost: evil.example\r\n\r\n", 403),
        ("GET /observe HTTP/1.1\r\nhost: evil.example\r\n\r\n", 403),
        (
            "PUT /logging?level=off HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n\r\n",
            403,
        ),
        ("GET / HTTP/1.1\r\nhost: [::1]:15000\r\n\r\n", 200),
    ] {
        let answer = ask(head).await;
        let answered = answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(answered, "{head}: {answer}");
        for header in [
            "content-security-policy: default-src 'none'",
            "x-frame-options: DENY",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.contains(header), "{head}: {header}");
        }
    }
    server.stop().await.unwrap();
}
