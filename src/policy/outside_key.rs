//! API keys outside the policy, looked up in the store and written as one in the policy.

use super::api_keys::{ApiKey, ApiKeyDocument};
use super::compiled::Policy;
use super::definitions::Definitions;
use super::reader::{FromJson, Reader, parse};
use super::report::{ConfigError, Report};
use crate::credential::Digest;

/// Reads an API key outside the policy, written as one in it; with its digest.
///
/// # Errors
///
/// [`ConfigError`] when it could not be a key of the policy.
pub fn read_key(policy: &Policy, text: &[u8]) -> Result<(ApiKey, Digest), ConfigError> {
    let report = Report::default();
    let root = Reader::new(&report);
    let key = parse(text, &root).and_then(|json| {
        let document = ApiKeyDocument::from_json(&json, &root);
        let (platform, bounds, tree) = (&policy.platform, policy.bounds.as_slice(), &policy.tree);
        let definitions = Definitions { platform, bounds, tree, key_ids: Vec::new() };
        let digest = document.digest(false, &root);
        let key = document.compile(&definitions, &root);
        for (name, _) in key.iter().flat_map(|key| &key.limits) {
            let counted = policy.limits.list.iter().filter(|limit| limit.is_per_key());
            root.member("limits").member(name).check_listed(
                name,
                "limits",
                counted.map(|limit| limit.id.as_str()),
            );
        }
        key.zip(digest)
    });
    report.into_value(key, text).map(|(key, _)| key)
}
