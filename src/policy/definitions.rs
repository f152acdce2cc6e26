//! Sections that others refer to by name.

use super::platform::Platform;
use super::reader::{List, Members, Reader};
use super::teams::Tree;
use super::text_bounds::TextBound;

/// Compiled sections that keys, issuers and routes refer to by name.
pub(super) struct Definitions<'a> {
    /// Features and scopes.
    pub(super) platform: &'a Platform,
    /// Text bounds.
    pub(super) bounds: &'a [TextBound],
    /// Teams and users.
    pub(super) tree: &'a Tree,
    /// Ids of the API keys, including those with a fault.
    pub(super) key_ids: Vec<&'a str>,
}

impl Definitions<'_> {
    /// Checks the features and scopes that a party switches or lists.
    pub(super) fn check_rights(
        &self,
        features: &Members<bool>,
        scopes: Option<&List<String>>,
        at: &Reader<'_>,
    ) {
        self.platform.check_features(features.names(), &at.member("features"));
        if let Some(scopes) = scopes {
            super::ids::check_scopes(scopes, &self.platform.scopes, &at.member("scopes"));
        }
    }
}
