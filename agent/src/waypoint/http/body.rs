//! Bodies on their way through: never held as a whole, unless they are small or ours.

mod request;
mod response;

use std::{error, fmt};

pub(super) use self::{
    request::{RequestBody, Source},
    response::{End, ResponseBody},
};
use super::under_way::Revoked;

/// Why a body ended before its time.
#[derive(Debug)]
pub(super) struct BodyError(Box<dyn error::Error + Send + Sync>);

impl BodyError {
    /// All of it took too long.
    fn late() -> Self {
        Self("the route's timeout has passed".into())
    }

    /// Its request is allowed no longer.
    fn revoked(revoked: &Revoked) -> Self {
        Self(Box::new(revoked.clone()))
    }

    /// It is a copy, and not all of it was to be had.
    fn partial() -> Self {
        Self("the client has ended within the body, or the mirror was too slow for it".into())
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for BodyError {}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self(Box::new(error))
    }
}
