//! nginx's files: the headers it must drop for a policy, and checks of a configuration that was written by hand.

mod check;
mod detours;
mod facts;
mod guard;
mod headers;
mod locations;
mod logs;
mod lua;
mod process;
mod report;
mod request;
mod source;
mod syntax;
#[cfg(test)]
mod tests;

pub use check::check;
pub use facts::Given;
pub use headers::CredentialHeaders;
pub use report::{Finding, Severity};
