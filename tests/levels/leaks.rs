//! What no upstream may see, whatever a case expects: credentials of clients, and reserved headers that the gateway did not
//! write.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::corpus::{File, Headers, Request};
use crate::support::expect::Observed;

/// Locations of credentials in one policy.
pub struct Leaks {
    forwards: bool,
    headers: BTreeSet<String>,
    parameters: BTreeSet<String>,
    /// Beginnings of API keys and tokens of this policy.
    prefixes: Vec<String>,
    /// Headers that the policy reads or writes a credential to.
    pub read_headers: Vec<String>,
}

/// Reserved names, folded; written down here again, so that a gap in the product's list is seen.
const RESERVED: &[&str] = &[
    "x-envoy-upstream-stream-duration-ms",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
];

impl Leaks {
    pub fn new(file: &File) -> Self {
        let policy: Value = serde_json::from_str(&file.policy).unwrap_or_default();
        let routes = policy["routes"].as_array().into_iter().flatten();
        let lists =
            routes.map(|route| &route["credential_locations"]).chain([&policy["credentials"]["locations"]]);
        let locations: Vec<&Value> = lists.filter_map(Value::as_array).flatten().collect();
        let named = |kind: &str| {
            let names = locations.iter().filter_map(|location| location[kind].as_str());
            names.map(str::to_ascii_lowercase).collect()
        };
        let forwards = policy["credentials"]["forward_credential"] == Value::Bool(true);
        let formats = policy["credentials"]["api_key_formats"].as_array().into_iter().flatten();
        let families = policy["tokens"].as_object().into_iter().flat_map(|tokens| tokens.values());
        let prefixes = formats.chain(families).filter_map(|marked| marked["prefix"].as_str());
        let prefixes = prefixes.filter(|prefix| !prefix.is_empty()).map(str::to_owned).collect();
        let headers: BTreeSet<String> = named("header");
        let mut read_headers: Vec<String> = headers.iter().cloned().collect();
        add_named_headers(&policy["routes"], &mut read_headers);
        Self { forwards, headers, parameters: named("query"), prefixes, read_headers }
    }

    /// Fails if the upstream saw one of them.
    pub fn check(&self, sent: &Request, observed: &Observed) -> Result<(), String> {
        let Some(seen) = &observed.upstream else { return Ok(()) };
        let is_guarded = observed.decision.as_ref().is_some_and(|decision| decision.get("key").is_some());
        let is_ours = |text: &&[u8]| self.prefixes.iter().any(|prefix| text.starts_with(prefix.as_bytes()));
        let all = || seen.headers.iter().chain(&seen.trailers).filter(|(name, _)| !name.starts_with(':'));
        for secret in self.credentials(sent).into_iter().filter(|text| is_guarded || is_ours(text)) {
            let holds = |text: &[u8]| text.windows(secret.len()).any(|part| part == secret);
            if all().any(|(_, value)| holds(value)) || holds(seen.path.as_bytes()) {
                return Err(format!(
                    "THE UPSTREAM SAW A CREDENTIAL: {} {:?}",
                    seen.path,
                    lines(&seen.headers)
                ));
            }
        }
        let mut written = BTreeSet::new();
        for (name, value) in all().filter(|(name, _)| is_reserved(name)) {
            let is_of_client = sent
                .headers
                .iter()
                .any(|(other, sent)| fold(other) == fold(name) && sent == value && !value.is_empty());
            if *name != fold(name) || is_of_client || !written.insert(name) {
                return Err(format!("THE UPSTREAM SAW A FORGED HEADER: {:?}", lines(&seen.headers)));
            }
        }
        Ok(())
    }

    /// Texts in the locations of credentials; shorter ones are in other values by chance.
    fn credentials<'r>(&self, sent: &'r Request) -> Vec<&'r [u8]> {
        if self.forwards {
            return Vec::new();
        }
        let headers =
            sent.headers.iter().filter(|(name, _)| self.headers.contains(&name.to_ascii_lowercase()));
        let of_headers = headers.filter_map(|(_, value)| value.rsplit(|byte| *byte == b' ').next());
        let query = sent.path.split_once('?').map_or("", |(_, query)| query);
        let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
        let of_query = parameters.filter(|(name, _)| self.parameters.contains(&name.to_ascii_lowercase()));
        of_headers.chain(of_query.map(|(_, value)| value.as_bytes())).filter(|text| text.len() > 15).collect()
    }
}

/// Adds the headers of all fields `header:name`.
fn add_named_headers(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            names.extend(text.strip_prefix("header:").map(|name| name.trim_end_matches('?').to_owned()));
        }
        Value::Array(list) => list.iter().for_each(|value| add_named_headers(value, names)),
        Value::Object(members) => members.values().for_each(|value| add_named_headers(value, names)),
        _ => {}
    }
}

fn fold(name: &str) -> String {
    name.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() as char } else { '-' })
        .collect()
}

fn is_reserved(name: &str) -> bool {
    let folded = fold(name);
    folded.starts_with("x-callbound-") || RESERVED.contains(&folded.as_str())
}

fn lines(headers: &Headers) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect()
}
