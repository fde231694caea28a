//! What the certificate authority has in a cluster instead of files: its key in a Secret, its trust bundle in a
//! ConfigMap, agents known by the tokens of their service account.

mod key;
mod objects;
mod token_review;

pub use self::{
    key::{ClusterKey, Error},
    token_review::TokenReviewer,
};
