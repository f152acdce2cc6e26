//! One request in, one decision out.
//!
//! [`Engine`] judges a request in steps ([`Step`]): its head, its body where the route reads it, and the store's reply to
//! its charges. The order of the checks is part of the defence. Cheap and unauthenticated checks come first, the first
//! failure decides, and nothing is charged before every other check has passed.
//!
//! Pure: no host call, no clock, no environment, no log. Time and randomness are arguments ([`DecisionContext`]).

mod answer;
mod authenticate;
mod bounds;
mod charges;
mod context;
mod denial;
mod directory;
mod engine;
mod failures;
mod fields;
mod guarded;
mod head;
mod introspect;
mod listing;
mod local_reply;
mod mint;
mod names;
mod outcome;
mod request;
mod revoke;
mod rights;
mod settle;
mod state;
mod step;
mod upstream_headers;

pub use answer::Answer;
pub use context::{DecisionContext, EARLIEST_NOW};
pub use denial::Denial;
pub use engine::Engine;
pub use mint::{BoundText, MintRequest, Minted, mint};
pub use outcome::{Decision, Effect, Outcome, Record};
pub use rights::{Demands, Principal, Rights};
pub use settle::{PendingCharge, Settled};
pub use step::{Pending, Step};
pub use upstream_headers::{Obligations, OpenSession, ResponseChanges};
