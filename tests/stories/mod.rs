//! The stories, and the policy they are told with.

mod browser;
mod clients;
mod containers;
mod failing;
mod issuers;
mod leaving;
mod reading;
mod realtime;
mod reload;
mod sessions;
mod watchdog;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::client;
use crate::support::corpus::Request;
use crate::support::expect::Answer;
use crate::support::gateway::{Gateway, Pieces, Setup, unchanged};
use crate::support::recorder::Recorder;
use crate::{LongStory, Story};

/// Every story that needs nothing but Envoy and the module.
pub const ALL: &[(&str, Story)] = &[
    ("a_shrunk_ceiling_binds_older_tokens_on_an_open_http1_connection", reload::ceiling_on_http1),
    ("a_shrunk_ceiling_binds_older_tokens_on_an_open_http2_connection", reload::ceiling_on_http2),
    ("a_request_under_way_survives_a_new_policy_over_http1", reload::in_flight_on_http1),
    ("a_request_under_way_survives_a_new_policy_over_http2", reload::in_flight_on_http2),
    ("a_policy_with_any_error_is_refused_and_the_old_one_keeps_serving", reload::bad_policy_is_refused),
    ("a_first_policy_with_an_error_serves_nothing", reload::first_bad_policy_serves_nothing),
    ("a_policy_whose_secret_is_not_set_serves_nothing", reload::missing_secret_serves_nothing),
    ("an_upstream_that_answers_503_sees_one_request", failing::one_request_on_503),
    ("without_the_flag_a_held_request_is_answered_and_the_setting_named", watchdog::names_the_setting),
    ("a_new_key_of_an_issuer_counts_soon_and_strangers_cannot_hurry_it", issuers::new_key_counts_soon),
    (
        "keys_of_an_issuer_that_are_too_old_refuse_until_they_can_be_fetched",
        issuers::old_keys_count_no_longer,
    ),
    ("a_client_that_leaves_in_the_middle_reaches_nobody", leaving::mid_body),
    ("the_access_log_says_the_decision_and_no_secret", reading::access_log),
    ("the_log_has_one_line_per_refusal_and_no_credential", reading::refusal_lines),
    (
        "a_client_that_asks_for_a_longer_session_is_cut_at_its_deadline",
        sessions::own_duration_changes_nothing,
    ),
    ("a_session_without_a_cap_outlives_its_token", sessions::uncapped_session_lasts),
    (
        "a_socket_stays_open_under_a_new_policy_and_the_next_is_judged_by_it",
        sessions::reload_binds_new_sockets,
    ),
];

/// Stories that need more than that, and find it themselves.
pub const WITH_MORE: &[(&str, LongStory)] = &[
    ("a_page_of_another_origin_calls_with_a_token_and_reads_a_refusal", browser::page_reads_a_refusal),
    ("a_page_is_cut_off_at_the_end_of_its_session", sessions::page_is_cut_at_deadline),
    ("a_page_of_another_origin_opens_no_socket", sessions::page_of_another_origin_is_refused),
    ("the_published_javascript_client_mints_connects_and_is_refused", clients::javascript),
    ("the_published_python_client_mints_connects_and_is_refused", clients::python),
    ("the_gateway_in_containers_does_the_same", containers::gateway_in_containers),
];

const MASTER: &str = "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_";
const KEY: &str = "demo_00112233445566778899aabbccddeeff";
const OWNED: &str = "+15551234567";
const ALLOWED: &str = "+15550001111";
const OTHER: &str = "+15550002222";

/// A gateway, its upstream, and a token for [`ALLOWED`] and [`OTHER`].
struct World {
    gateway: Gateway,
    upstream: Recorder,
    env: BTreeMap<String, String>,
    cors: Vec<&'static str>,
}

impl World {
    fn start(pieces: &Pieces, policy: &Value) -> Result<Self, String> {
        Self::start_with(pieces, &policy.to_string(), &[], &unchanged)
    }

    fn start_with(
        pieces: &Pieces,
        policy: &str,
        cors: &[&'static str],
        edit: &dyn Fn(String) -> String,
    ) -> Result<Self, String> {
        let upstream = Recorder::start()?;
        let env = BTreeMap::from([("CALLBOUND_MASTER".to_owned(), MASTER.to_owned())]);
        let setup = Setup { policy, env: &env, upstream: upstream.address(), cors, edit };
        let gateway = Gateway::start(pieces, &setup)?;
        Ok(Self { gateway, upstream, env, cors: cors.to_vec() })
    }

    /// Another policy, as an operator delivers it.
    fn deliver(&self, policy: &Value, edit: &dyn Fn(String) -> String) -> Result<(), String> {
        let upstream = self.upstream.address();
        let policy = policy.to_string();
        self.gateway.deliver(&Setup { policy: &policy, env: &self.env, upstream, cors: &self.cors, edit })
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// A token minted by the gateway.
    fn mint(&self) -> Result<String, String> {
        let asked = json!({"from_numbers": [OWNED], "to_numbers": [ALLOWED, OTHER]});
        let answer = client::exchange(
            self.address(),
            &Request::new("POST", "/v1/client-tokens").bearer(KEY).json(&asked),
        )?;
        let token = answer.json()["data"]["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| format!("no token: {} {}", answer.status, answer.text()))
    }

    /// Nothing has reached the upstream beyond `count` requests, by its own word and by Envoy's.
    fn upstream_saw(&self, count: usize) -> Result<(), String> {
        let seen = (self.upstream.count(), self.gateway.upstream_requests());
        same("requests upstream (recorded, begun by Envoy)", seen, (count, count as u64))
    }

    /// Good requests on new connections, enough to meet every worker.
    fn is_alive(&self, token: &str) -> Result<(), String> {
        (0..6).try_for_each(|_| {
            let answer = client::exchange(self.address(), &call(token, ALLOWED))?;
            status("a good request afterwards", &answer, 200)
        })
    }
}

/// A call to a number.
fn call(token: &str, to: &str) -> Request {
    Request::new("POST", "/v1/calls").bearer(token).json(&json!({"from_number": OWNED, "to_number": to}))
}

/// A policy whose only key may mint and call.
fn policy() -> Value {
    let digest = Sha256::digest(KEY);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "version": 1,
        "host": "envoy",
        "platform": {"features": {}, "scopes": ["tokens:mint", "calls:write"]},
        "credentials": {
            "api_keys": [{"prefix": "demo_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
            "from": [{"header": "authorization", "scheme": "Bearer"}]
        },
        "keyring": [{"kid": "1", "alg": "HS256", "secret": {"derive": {"env": "CALLBOUND_MASTER"}}, "sign": true}],
        "tokens": {"ct": {
            "prefix": "ct_", "issuer": "demo", "ttl": {"min": 60, "max": 3600, "default": 900},
            "default_scopes": ["calls:write"]
        }},
        "teams": [{"id": "acme", "kind": "organization", "numbers": [OWNED]}],
        "api_keys": [{"id": "backend", "sha256": digest, "team": "acme", "scopes": ["tokens:mint", "calls:write"]}],
        "routes": [
            {"id": "mint", "match": "POST /v1/client-tokens", "accept": ["api_key"], "scopes": ["tokens:mint"],
             "mint": {
                "family": "ct",
                "request": {
                    "from": {"member": "from_numbers", "required": true, "max": 50},
                    "to": {"member": "to_numbers", "max": 200}
                },
                "reply": {"status": 200, "body": {"data": {"token": "$token"}}}
             }},
            {"id": "dial", "match": "POST /v1/calls", "accept": ["api_key", "ct"], "scopes": ["calls:write"],
             "bounds": {"from": {"members": ["/from_number"]}, "to": {"members": ["/to_number"]}}}
        ],
        "refusals": {"realm": "demo", "envelope": {"error": {"code": "$code", "message": "$message"}}}
    })
}

/// The same policy, its key held to [`ALLOWED`].
fn narrowed() -> Value {
    let mut policy = policy();
    policy["api_keys"][0]["ceiling"] = json!({"to": [ALLOWED]});
    policy
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

fn status(what: &str, answer: &Answer, expected: u16) -> Result<(), String> {
    let problem = || format!("{what}: expected {expected}, got {} {}", answer.status, answer.text());
    if answer.status == expected { Ok(()) } else { Err(problem()) }
}
