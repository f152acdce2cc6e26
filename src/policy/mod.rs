//! Policies: the document, its compiler and the compiled, immutable [`Policy`].
//!
//! One file per subject holds its document type, its compiled type and the conversion between them. `document.rs` lists
//! the sections, [`compile()`] turns them into a [`Policy`] that every request shares. Requests are unknown here: it
//! answers questions about teams, keys, numbers and routes.

mod accept;
mod api_keys;
mod bounds;
mod ceilings;
mod compile;
mod compiled;
mod counting;
mod credentials;
mod definitions;
mod document;
mod endpoints;
mod families;
mod fields;
mod guarantee;
mod host;
mod host_checks;
mod ids;
mod introspect;
mod issuers;
mod largest_call;
mod limits;
mod list;
mod merge;
mod mint;
mod outside_key;
mod path_templates;
mod platform;
mod read_headers;
mod reader;
mod refusals;
mod report;
mod revocations;
mod route;
mod route_checks;
mod route_definitions;
mod route_limits;
mod routes;
#[cfg(feature = "cli")]
mod schema;
#[cfg(feature = "cli")]
mod schema_parts;
mod secrets;
mod store;
mod suggest;
mod teams;
mod template;
mod text_bounds;
mod token_keys;
mod upstream_credentials;

pub use accept::{Accept, TokenSource};
pub use api_keys::{ApiKey, Keys};
pub use bounds::{BoundSource, Bounds, Call, TextRule};
pub use ceilings::Ceiling;
pub use compile::compile;
pub use compiled::Policy;
pub use document::Unmatched;
pub use endpoints::{Endpoint, Endpoints, Network};
pub use fields::{FieldRef, Pointer, RequestField};
pub use guarantee::{Enforcement, Guarantee, guarantees};
pub use host::{DuringCallouts, End, Hold, Host, Profile, SharedMemory, host_of};
pub use introspect::IntrospectRule;
pub use limits::{Counts, Limit, Limits, Measure, Per, Shown};
pub use list::ListingRule;
pub use merge::merge;
pub use mint::{Allowance, Field, MetadataField, MintRule, RangeField, SizedList, TextField, ValueSource};
pub use outside_key::read_key;
pub use platform::Platform;
pub use read_headers::ReadHeaders;
pub use refusals::{RefusalFormat, Refusals};
pub use report::{ConfigError, Path, Problem, Severity};
pub use revocations::RevokeRule;
pub use route::{ForwardedField, LocalReply, Route, UsesRule};
pub use routes::{RouteMatch, Routes};
#[cfg(feature = "cli")]
pub use schema::schema;
pub use secrets::Secrets;
pub use store::{DirectoryRule, Remembers, StoreBackend, StoreRule};
pub use teams::{Owner, Party, PartyId, Reach, Tree};
pub use template::Template;
pub use text_bounds::{ENDPOINT, Form, TextBound, is_origin};
pub use upstream_credentials::InsertedCredential;
