//! Checks of our wasm filter's own configuration.

use super::filters::{is_buffered, policy};
use super::report::Report;
use super::yaml::Node;

const BODY_WOULD_HANG: &str = "`allow_on_headers_stop_iteration` is not true: a request that waits for its body would hang; set it (Envoy 1.35 or later)";
const NO_FAILURE_POLICY: &str = "no `failure_policy`: a worker whose module has failed answers 503 until Envoy is restarted; set it to FAIL_RELOAD where you can";
const FAILS_OPEN: &str = "`failure_policy` is not FAIL_RELOAD or FAIL_CLOSED; set it to FAIL_RELOAD";
const NOT_TEXT: &str = "not a google.protobuf.StringValue: duplicates and order are lost before callbound reads it; give the policy as text";
const NO_POLICY: &str = "no `configuration`, so there is no policy; give it as a google.protobuf.StringValue";

impl Report<'_> {
    /// Checks the `config` of our wasm filter.
    pub(super) fn check_module(&mut self, config: &Node) {
        let policy = policy(config);
        let host = policy.as_ref().and_then(|policy| policy["host"].as_str()).filter(|host| *host != "envoy");
        if let Some((host, configuration)) = host.zip(config.get("configuration")) {
            let problem = format!("the policy is for `{host}`; write `\"host\": \"envoy\"`");
            self.error(&configuration, &problem);
        }
        if !policy.as_ref().is_some_and(is_buffered) && !config.flag("allow_on_headers_stop_iteration") {
            self.error(config, BODY_WOULD_HANG);
        }
        self.check_failure(config);
        match config.get("configuration") {
            Some(text) if text.message_type().ends_with("google.protobuf.StringValue") => {}
            Some(other) => self.error(&other, NOT_TEXT),
            None => self.error(config, NO_POLICY),
        }
    }

    /// Checks that a failed module closes; without a `failure_policy` it does (FAIL_CLOSED).
    fn check_failure(&mut self, config: &Node) {
        match config.get("failure_policy") {
            Some(word) if word.is_one_of(&[("FAIL_RELOAD", 1), ("FAIL_CLOSED", 2)]) => {}
            Some(word) if !word.is_one_of(&[("UNSPECIFIED", 0)]) => self.error(config, FAILS_OPEN),
            _ => self.warn(config, NO_FAILURE_POLICY),
        }
        if config.flag("fail_open") {
            self.error(config, "`fail_open` lets every request through when the module fails; remove it");
        }
    }
}
