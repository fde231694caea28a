//! Messages whole, in pieces, and wrong.

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::{Answer, Malformed, Request, request};

type Fed = Result<Option<u64>, Malformed>;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn answers_are_known_by_their_length() {
    let cases: [(&[u8], Fed); 6] = [
        (ANSWER, Ok(Some(43))),
        (&ANSWER[..40], Ok(None)),
        (&ANSWER[..20], Ok(None)),
        (
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Ok(Some(46)),
        ),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            Err(Malformed::Status(503)),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(Malformed::NoLength),
        ),
    ];
    for (bytes, expected) in cases {
        let told = Answer::default().feed(bytes);
        assert_eq!(told, expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn bytes_after_an_answer_are_told() {
    let surplus = [ANSWER, b"!!"].concat();
    assert_eq!(Answer::default().feed(&surplus), Err(Malformed::Surplus(2)));
}

#[test]
fn a_head_without_end_is_refused() {
    let endless = [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'x'; 40_000]].concat();
    assert_eq!(Answer::default().feed(&endless), Err(Malformed::TooLong));
    let endless = [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 40_000]].concat();
    assert_eq!(request(&endless), Err(Malformed::TooLong));
}

#[test]
fn requests_say_whether_they_are_the_last() {
    let cases = [
        ("GET /17 HTTP/1.1\r\nHost: a\r\n\r\n", "/17", false),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", "/", true),
        ("GET / HTTP/1.0\r\n\r\n", "/", true),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "/",
            false,
        ),
    ];
    for (text, path, close) in cases {
        let head = text.len();
        let expected = Request { head, path, close };
        let more = [text, "GET /next HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(request(more.as_bytes()), Ok(Some(expected)));
        assert_eq!(request(&text.as_bytes()[..head - 1]), Ok(None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn answers_in_pieces_are_counted_as_whole_ones(
        bodies in proptest::collection::vec(0_usize..200, 1..5),
        cuts in proptest::collection::vec(1_usize..90, 100),
    ) {
        let mut answer = Answer::default();
        let mut cuts = cuts.into_iter().cycle();
        for body in bodies {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\nA: b\r\n\r\n");
            let whole = [head.as_bytes(), &vec![b'.'; body]].concat();
            let mut rest = &whole[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = after;
                let expected = rest.is_empty().then_some(whole.len() as u64);
                prop_assert_eq!(answer.feed(piece), Ok(expected));
            }
        }
    }

    #[test]
    fn nothing_that_comes_makes_them_panic(bytes in any::<Vec<u8>>()) {
        let _ = request(&bytes);
        let mut answer = Answer::default();
        let _ = answer.feed(&bytes);
        let _ = answer.feed(&bytes);
    }
}
