//! Which pages of other origins browsers may let ask, and read the answer.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
    request::Parts as Request,
    response::Parts as Response,
};

use super::empty;
use crate::discovery::model::{AllowedOrigins, Cors, Listed, Origin};

const ANY: HeaderValue = HeaderValue::from_static("*");
/// What the backend says of it itself doesn't count where a route does.
const OURS: [HeaderName; 3] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
];

/// What a request is to the filter.
#[derive(Debug)]
pub enum CrossOrigin {
    /// It is no page's.
    No,
    /// A browser asks whether it may ask. This is the answer; the backend isn't asked.
    Preflight(Box<Response>),
    /// A page's: it goes to the backend, and this is for the answer.
    Request(CorsGrant),
}

/// What an answer is to say.
#[derive(Debug)]
pub struct CorsGrant(HeaderMap);

/// What the filter says of a request.
#[must_use]
pub fn cross_origin(cors: &Cors, request: &Request) -> CrossOrigin {
    let Some(origin) = request.headers.get(ORIGIN) else {
        return CrossOrigin::No;
    };
    let headers = granted(cors, origin);
    let method = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
    let (Some(method), &Method::OPTIONS) = (method, &request.method) else {
        let headers = headers.map(|headers| exposed(cors, headers));
        return CrossOrigin::Request(CorsGrant(headers.unwrap_or_default()));
    };
    let mut response = empty(StatusCode::NO_CONTENT);
    if let Some(mut headers) = headers {
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let methods = (
            ACCESS_CONTROL_ALLOW_METHODS,
            allowed(cors, &cors.methods, Some(method)),
        );
        let names = (
            ACCESS_CONTROL_ALLOW_HEADERS,
            allowed(cors, &cors.headers, asked),
        );
        for (name, value) in [methods, names] {
            headers.extend(value.map(|value| (name, value)));
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
        response.headers = headers;
    }
    CrossOrigin::Preflight(Box::new(response))
}

impl CorsGrant {
    /// Has an answer say it.
    pub fn apply(self, response: &mut Response) {
        for name in OURS {
            response.headers.remove(name);
        }
        for (name, value) in self
            .0
            .into_iter()
            .filter_map(|(name, it)| Some((name?, it)))
        {
            match name {
                VARY => response.headers.append(name, value),
                _ => response.headers.insert(name, value).is_some(),
            };
        }
    }
}

/// What every answer to an origin says; `None` if it isn't allowed.
fn granted(cors: &Cors, origin: &HeaderValue) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    match &cors.origins {
        AllowedOrigins::Any if !cors.credentials => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        }
        origins => {
            if let AllowedOrigins::These(these) = origins {
                let sent = Origin::parse(origin.to_str().ok()?)?;
                these.iter().find(|allowed| allowed.matches(&sent))?;
            }
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            // Others get another answer, which no cache may mix up.
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
    }
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    Some(headers)
}

fn exposed(cors: &Cors, mut headers: HeaderMap) -> HeaderMap {
    let value = allowed(cors, &cors.expose, None);
    headers.extend(value.map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)));
    headers
}

/// With credentials `*` means nothing to browsers: what was asked for is answered then.
fn allowed<T>(cors: &Cors, listed: &Listed<T>, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    match listed {
        Listed::Any if cors.credentials => asked.cloned(),
        Listed::Any => Some(ANY),
        Listed::These { all, .. } if all.is_empty() => None,
        Listed::These { text, .. } => Some(text.clone()),
    }
}
