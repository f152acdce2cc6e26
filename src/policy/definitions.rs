//! Sections that others refer to by name.

use std::rc::Rc;

use super::platform::Platform;
use super::teams::Tree;
use super::text_bounds::TextBound;

/// Compiled sections that keys, issuers and routes refer to by name.
pub(super) struct Definitions<'a> {
    /// Features and scopes.
    pub(super) platform: &'a Platform,
    /// Text bounds that credentials can have.
    pub(super) bounds: &'a [Rc<TextBound>],
    /// Teams and users.
    pub(super) tree: &'a Tree,
    /// Ids of the API keys, including those with a fault.
    pub(super) key_ids: Vec<&'a str>,
}
