//! `callbound nginx-headers`: headers of clients' credentials, which nginx must drop before the upstream.
//!
//! On nginx a filter cannot take a header out of a request; callbound replaces its value by an empty one. nginx leaves
//! out a header that `proxy_set_header` sets to an empty text.

use std::collections::BTreeSet;

use callbound::policy::{Policy, RequestField};

/// Headers that nginx or the protocol needs, whatever a policy reads from them.
const NEVER_DROPPED: [&str; 5] =
    ["connection", "content-length", "host", "sec-websocket-protocol", "transfer-encoding"];

/// Headers in which a policy looks for credentials.
pub struct CredentialHeaders {
    /// Names in lower case that nginx drops, sorted.
    pub(super) dropped: Vec<String>,
    /// Names of clients' credentials in which a route sends the upstream's own, sorted; dropped, they would be lost.
    kept: Vec<String>,
    /// Names of all headers in which a route sends the upstream's own credential, sorted.
    pub(super) inserted: Vec<String>,
    /// True when the policy sends the client's credential on.
    is_forwarded: bool,
    revision: String,
}

impl CredentialHeaders {
    /// Collects the headers of a policy.
    pub fn of(policy: &Policy) -> Self {
        let of_routes = policy.routes.iter().flat_map(|route| route.locations.iter().flatten());
        let locations = policy.locations.iter().chain(of_routes);
        let read: BTreeSet<&str> = locations
            .filter_map(|location| location.header())
            .filter(|name| !NEVER_DROPPED.contains(name) && !policy.forward_credential)
            .collect();
        let credentials = policy.routes.iter().filter_map(|route| route.upstream_credential.as_ref());
        let inserted: BTreeSet<&str> = credentials
            .filter_map(|credential| match &credential.place {
                RequestField::Header(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let owned = |name: &&str| (*name).to_owned();
        Self {
            dropped: read.difference(&inserted).map(owned).collect(),
            kept: read.intersection(&inserted).map(owned).collect(),
            inserted: inserted.iter().map(owned).collect(),
            is_forwarded: policy.forward_credential,
            revision: policy.revision.clone(),
        }
    }

    /// Renders `callbound-headers.conf`, without a line feed at its end.
    pub fn render(&self) -> String {
        let mut lines = vec![
            format!("# Made by `callbound nginx-headers` from policy {}.", self.revision),
            "# callbound empties the credentials of clients; with these lines nginx leaves the empty headers out. Include this"
                .to_owned(),
            "# file in every location that proxies: one with a `proxy_set_header` of its own inherits none."
                .to_owned(),
        ];
        if self.is_forwarded {
            lines.push(
                "# Nothing is dropped: the policy sends the client's credential on (`credentials.forward_credential`)."
                    .to_owned(),
            );
        } else if self.dropped.is_empty() && self.kept.is_empty() {
            lines.push("# Nothing is dropped: the policy reads no credential from a header.".to_owned());
        }
        lines.extend(self.kept.iter().map(|name| {
            format!(
                "# Not dropped: `{name}`, in which a route sends the upstream's own credential. Other routes send it empty."
            )
        }));
        lines.extend(self.dropped.iter().map(|name| format!("proxy_set_header {name} \"\";")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use callbound::policy::{Secrets, compile};
    use serde_json::{Value, json};

    use super::*;

    /// Headers of the sample policy with a patch merged over it.
    fn headers(over: Value) -> CredentialHeaders {
        let mut policy: Value = serde_json::from_str(include_str!("../init.json")).unwrap();
        policy["api_keys"][0]["sha256"] = json!("0".repeat(64));
        callbound::policy::merge(&mut policy, over);
        let compiled = compile(policy.to_string().as_bytes(), &Secrets::Unchecked);
        CredentialHeaders::of(&compiled.unwrap_or_else(|error| panic!("{error}")))
    }

    fn lines(headers: &CredentialHeaders) -> Vec<String> {
        let text = headers.render();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    const LOCATIONS: [&str; 4] = ["x-key", "authorization", "sec-websocket-protocol", "x-key"];

    fn located() -> Value {
        let headers: Vec<Value> = LOCATIONS.iter().take(3).map(|name| json!({"header": name})).collect();
        json!({"credentials": {"locations": headers}})
    }

    fn with_route(members: Value) -> Value {
        let mut policy = located();
        let mut route = json!({"id": "dial", "match": "POST /dial", "accept": ["api_key"]});
        callbound::policy::merge(&mut route, members);
        policy["routes"] = json!([route]);
        policy
    }

    #[test]
    fn headers_are_sorted_and_named_once() {
        let found = headers(with_route(
            json!({"credential_locations": [{"header": "x-key"}, {"header": "x-old"}, {"query": "key"}]}),
        ));
        let expected =
            ["authorization", "x-key", "x-old"].map(|name| format!("proxy_set_header {name} \"\";"));
        assert_eq!(lines(&found), expected);
    }

    #[test]
    fn header_of_the_upstreams_own_credential_is_kept_with_its_reason() {
        let mut policy = with_route(
            json!({"upstream_credential": {"key": "vendor", "at": "header:authorization", "scheme": "Bearer"}}),
        );
        policy["upstream_credentials"] = json!([{"id": "vendor", "secret": {"env": "VENDOR"}}]);
        let found = headers(policy);
        assert_eq!(lines(&found), ["proxy_set_header x-key \"\";"]);
        assert!(found.render().contains("# Not dropped: `authorization`"), "{}", found.render());
    }

    #[test]
    fn forwarded_credential_is_not_dropped() {
        let mut policy = located();
        policy["credentials"]["forward_credential"] = json!(true);
        let found = headers(policy);
        assert_eq!(lines(&found), [""; 0]);
        assert!(found.render().contains("credentials.forward_credential"), "{}", found.render());
    }
}
