//! nginx's files: the headers it must drop for a policy, and checks of a configuration that was written by hand.

mod headers;

pub use headers::CredentialHeaders;
