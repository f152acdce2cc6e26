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
mod store;
mod store_directory;
mod store_failing;
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
    ("of_200_uses_at_once_on_four_workers_one_is_let_through", store::one_of_many_on_four_workers),
    ("a_new_policy_forgets_neither_what_was_spent_nor_charged", store::reload_keeps_what_is_remembered),
    (
        "a_gateway_started_anew_refuses_tokens_whose_uses_it_may_have_forgotten",
        store::restart_refuses_older_tokens,
    ),
    ("a_limit_is_exact_under_many_clients_and_strangers_charge_nothing", store_limits::exact_on_two_workers),
    ("a_burst_is_exact_under_many_clients", store_limits::burst_on_two_workers),
    ("who_waits_as_long_as_told_is_let_through", store_limits::retry_after_is_true),
    ("who_guesses_is_refused_before_being_looked_at", store_limits::guesses_are_limited),
    ("what_is_revoked_stops_at_once_on_every_worker", store_revoking::at_once_on_every_worker),
    ("what_a_policy_revokes_stops_with_its_delivery", store_revoking::by_the_policy),
    ("a_token_has_as_many_sessions_at_once_as_it_may", store_sessions::as_many_as_it_may),
    ("sessions_of_a_token_last_together_as_long_as_they_may", store_sessions::seconds_together),
    ("a_lost_session_comes_back_in_time_and_never_beside_itself", store_sessions::lost_session_comes_back),
];

/// Stories that need more than that, and find it themselves.
pub const WITH_MORE: &[(&str, LongStory)] = &[
    ("a_page_of_another_origin_calls_with_a_token_and_reads_a_refusal", browser::page_reads_a_refusal),
    ("a_page_is_cut_off_at_the_end_of_its_session", sessions::page_is_cut_at_deadline),
    ("a_page_of_another_origin_opens_no_socket", sessions::page_of_another_origin_is_refused),
    ("the_published_javascript_client_mints_connects_and_is_refused", clients::javascript),
    ("the_published_python_client_mints_connects_and_is_refused", clients::python),
    ("the_gateway_in_containers_does_the_same", containers::gateway_in_containers),
    ("the_bridge_may_do_what_the_script_does_and_no_more", store::bridge_may_what_the_script_does),
    ("of_200_uses_at_once_on_two_gateways_one_is_let_through", store::one_of_many_on_two_gateways),
    ("a_gateway_of_a_fleet_started_anew_forgets_nothing", store::restart_in_a_fleet_forgets_nothing),
    ("without_a_store_nothing_passes_and_nothing_twice", store_failing::away),
    ("a_store_that_answers_in_other_words_lets_nothing_pass", store_failing::answering_in_other_words),
    (
        "a_store_that_answers_too_late_or_to_somebody_else_lets_nothing_pass",
        store_failing::answering_too_late_or_to_somebody_else,
    ),
    (
        "an_answer_that_the_bridge_gives_to_somebody_else_is_none",
        store_failing::late_answers_to_somebody_else,
    ),
    ("a_redis_that_takes_no_changes_lets_nothing_pass", store_failing::redis_in_the_wrong_state),
    ("a_redis_that_began_anew_makes_older_tokens_worthless", store_failing::redis_that_lost_its_data),
    ("a_redis_that_may_forget_is_no_store", store_failing::redis_that_may_forget),
    ("a_limit_is_exact_over_two_gateways", store_limits::exact_on_two_gateways),
    ("a_burst_is_exact_over_two_gateways", store_limits::burst_on_two_gateways),
    ("what_is_revoked_stops_on_all_gateways_in_time", store_revoking::in_time_on_all_gateways),
    ("revocations_that_are_too_old_refuse_or_serve_as_declared", store_revoking::too_old),
    ("keys_that_stand_in_redis_are_found_by_every_gateway", store_directory::keys_that_stand_in_redis),
    ("the_tool_revokes_at_every_gateway", store_directory::the_tool_revokes),
    ("the_slots_of_a_gateway_that_crashed_come_back", store_sessions::slots_come_back_after_a_crash),
    ("a_lost_session_comes_back_at_another_gateway", store_sessions::lost_session_comes_back_elsewhere),
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
                    "from": {"member": "from_numbers", "required": true, "max": 50},
                    "to": {"member": "to_numbers", "max": 200}
                },
                "reply": {"status": 200, "body": {"data": {"token": "$token"}}}
             }},
            {"id": "dial", "match": "POST /v1/calls", "accept": ["api_key", "ct"], "scopes": ["calls:write"],
             "bounds": {"from": "/from_number", "to": "/to_number"}}
        ],
        "refusals": {"realm": "demo", "envelope": {"error": {"code": "$code", "message": "$message"}}}
    })
}

/// How a policy names an API key.
fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
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
