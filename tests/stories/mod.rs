//! Tests on a real Envoy, and the policy they share.

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
mod store;
mod store_directory;
mod store_failing;
mod store_install;
mod store_limits;
mod store_revoking;
mod store_sessions;
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

/// Tests that need only Envoy and the module.
pub const ALL: &[(&str, Story)] = &[
    ("narrowed_ceiling_on_open_http1_connection_binds_older_tokens", reload::ceiling_on_http1),
    ("narrowed_ceiling_on_open_http2_connection_binds_older_tokens", reload::ceiling_on_http2),
    ("http1_request_in_flight_survives_new_policy", reload::in_flight_on_http1),
    ("http2_request_in_flight_survives_new_policy", reload::in_flight_on_http2),
    ("invalid_policy_is_rejected_and_previous_one_stays", reload::bad_policy_is_refused),
    ("first_invalid_policy_serves_nothing", reload::first_bad_policy_serves_nothing),
    ("policy_with_missing_secret_serves_nothing", reload::missing_secret_serves_nothing),
    ("upstream_answering_503_receives_one_request", failing::one_request_on_503),
    ("missing_flag_is_named_in_log_and_held_request_is_answered", watchdog::names_the_setting),
    ("new_issuer_key_is_fetched_at_its_own_pace", issuers::new_key_is_fetched),
    ("stale_issuer_keys_are_refused_until_fetched", issuers::stale_keys_are_refused),
    ("client_that_disconnects_mid_body_reaches_no_upstream", leaving::mid_body),
    ("access_log_holds_decision_and_no_secret", reading::access_log),
    ("log_holds_one_line_per_refusal_and_no_credential", reading::refusal_lines),
    ("session_with_client_duration_header_ends_at_its_deadline", sessions::own_duration_changes_nothing),
    ("session_without_cap_outlives_its_token", sessions::uncapped_session_lasts),
    ("open_socket_survives_new_policy_that_binds_the_next", sessions::reload_binds_new_sockets),
    ("single_use_token_in_race_on_four_workers_is_allowed_once", store::one_of_many_on_four_workers),
    ("spent_tokens_and_charges_survive_new_policy", store::reload_keeps_state),
    ("older_tokens_after_restart_are_refused", store::restart_refuses_older_tokens),
    ("limit_under_many_clients_is_exact_and_failed_requests_are_free", store_limits::exact_on_two_workers),
    ("burst_under_many_clients_is_exact", store_limits::burst_on_two_workers),
    ("request_after_retry_after_is_allowed", store_limits::retry_after_is_exact),
    ("failed_auth_limit_is_checked_before_authentication", store_limits::failures_are_limited),
    ("revocation_stops_credential_at_once_on_every_worker", store_revoking::at_once_on_every_worker),
    ("revocation_in_policy_stops_credential_on_delivery", store_revoking::by_the_policy),
    ("concurrent_sessions_beyond_limit_are_refused", store_sessions::concurrent_sessions),
    ("sessions_of_token_share_total_seconds", store_sessions::seconds_together),
    ("lost_session_is_resumed_in_time_and_never_twice", store_sessions::lost_session_is_resumed),
];

/// Tests that need more, and look for it themselves.
pub const WITH_MORE: &[(&str, LongStory)] = &[
    ("page_of_allowed_origin_calls_and_reads_refusal", browser::page_reads_a_refusal),
    ("page_sends_its_credential_in_another_header", browser::page_sends_its_credential_in_another_header),
    ("page_session_ends_at_its_deadline", sessions::page_is_cut_at_deadline),
    ("page_of_other_origin_opens_no_socket", sessions::page_of_another_origin_is_refused),
    ("published_javascript_client_mints_connects_and_is_refused", clients::javascript),
    ("published_python_client_mints_connects_and_is_refused", clients::python),
    ("gateway_in_containers_passes_its_test", containers::gateway_in_containers),
    ("bridge_user_is_limited_to_commands_of_function", store::bridge_rights_match_function),
    ("single_use_token_in_race_on_two_gateways_is_allowed_once", store::one_of_many_on_two_gateways),
    ("restarted_gateway_of_fleet_keeps_tokens_spent", store::restart_in_fleet_keeps_uses),
    ("missing_store_allows_nothing_and_nothing_twice", store_failing::away),
    ("malformed_store_answer_allows_nothing", store_failing::malformed_answers),
    ("late_or_crossed_store_answer_allows_nothing", store_failing::late_answers),
    ("store_answer_for_other_client_is_ignored", store_failing::crossed_answers),
    ("read_only_redis_allows_nothing", store_failing::redis_in_the_wrong_state),
    ("redis_without_data_refuses_older_tokens", store_failing::redis_without_data),
    ("redis_with_eviction_is_refused_as_store", store_failing::evicting_redis),
    ("limit_over_two_gateways_is_exact", store_limits::exact_on_two_gateways),
    ("burst_over_two_gateways_is_exact", store_limits::burst_on_two_gateways),
    ("revocation_stops_credential_on_all_gateways_in_time", store_revoking::in_time_on_all_gateways),
    ("stale_revocations_refuse_or_serve_as_declared", store_revoking::too_old),
    ("keys_in_redis_are_found_by_every_gateway", store_directory::keys_in_redis),
    ("revocation_by_tool_reaches_every_gateway", store_directory::revocation_by_tool),
    ("missing_function_in_store_is_named_until_installed", store_install::missing_function),
    ("function_in_store_is_replaced_while_gateways_run", store_install::replaced_function),
    ("libraries_of_two_layouts_in_store_coexist", store_install::two_layouts),
    ("bridge_to_store_passes_calls_of_function_only", store_install::bridge_passes_the_function_only),
    ("head_of_request_to_store_is_as_short_as_assumed", store_install::short_head),
    ("longest_request_to_store_is_answered_in_one_read", store_install::longest_request),
    ("sessions_of_crashed_gateway_are_freed", store_sessions::crashed_sessions_are_freed),
    ("lost_session_is_resumed_at_other_gateway", store_sessions::lost_session_at_other_gateway),
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

    /// Delivers another policy as an operator does.
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
        let request = json!({"from_numbers": [OWNED], "to_numbers": [ALLOWED, OTHER]});
        let answer = client::exchange(
            self.address(),
            &Request::new("POST", "/v1/client-tokens").bearer(KEY).json(&request),
        )?;
        let token = answer.json()["data"]["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| format!("no token: {} {}", answer.status, answer.text()))
    }

    /// Checks the number of requests upstream, as recorded there and as counted by Envoy.
    fn upstream_saw(&self, count: usize) -> Result<(), String> {
        let seen = (self.upstream.count(), self.gateway.upstream_requests());
        same("requests upstream (recorded, begun by Envoy)", seen, (count, count as u64))
    }

    /// Sends valid requests on new connections, enough to reach every worker.
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
    let digest = digest(KEY);
    json!({
        "version": 1,
        "host": "envoy",
        "platform": {"features": {}, "scopes": ["tokens:mint", "calls:write"]},
        "credentials": {
            "api_key_formats": [{"prefix": "demo_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
            "locations": [{"header": "authorization", "scheme": "Bearer"}]
        },
        "token_keys": [{"kid": "1", "alg": "HS256", "secret": {"derive": {"env": "CALLBOUND_MASTER"}}, "sign": true}],
        "tokens": {"ct": {
            "prefix": "ct_", "issuer": "demo", "ttl_seconds": {"min": 60, "max": 3600, "default": 900},
            "default_scopes": ["calls:write"]
        }},
        "teams": [{"id": "acme", "kind": "organization", "numbers": [OWNED]}],
        "api_keys": [{"id": "backend", "sha256": digest, "team": "acme", "scopes": ["tokens:mint", "calls:write"]}],
        "routes": [
            {"id": "mint", "match": "POST /v1/client-tokens", "accept": ["api_key"], "scopes": ["tokens:mint"],
             "mint": {
                "family": "ct",
                "request": {
                    "from": {"field": "from_numbers", "required": true, "max": 50},
                    "to": {"field": "to_numbers", "max": 200}
                },
                "reply": {"status": 200, "body": {"data": {"token": "$token"}}}
             }},
            {"id": "dial", "match": "POST /v1/calls", "accept": ["api_key", "ct"], "scopes": ["calls:write"],
             "bounds": {"from": "/from_number", "to": "/to_number"}}
        ],
        "refusals": {"realm": "demo", "envelope": {"error": {"code": "$code", "message": "$message"}}}
    })
}

/// Returns the digest by which a policy names an API key.
fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the policy with a ceiling of [`ALLOWED`] for its key.
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
