//! What the certificate authority has in a cluster instead of files: its key in a Secret, its trust bundle in a
//! ConfigMap, agents known by the tokens of their service account.

mod key;
mod lease;
mod objects;
mod token_review;

pub use self::{
    key::{ClusterKey, Error},
    lease::{Leadership, identity, while_leading},
    token_review::TokenReviewer,
};
