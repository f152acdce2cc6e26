//! Helpers of the tests about sockets: the policy of a realtime platform with a team and a key, and its mint.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::World;
use crate::support::client;
use crate::support::corpus::Request;
use crate::support::expect::Answer;
use crate::support::gateway::Pieces;
use crate::support::require::root;

pub(super) const API_KEY: &str = "dct_0123456789abcdef";
pub(super) const MODEL: &str = "lucy-2.5";
pub(super) const OTHER_MODEL: &str = "lucy-restyle-2";

/// `policies/decart.json` as an operator would complete it, but for sessions that may be as short as a second.
pub(super) fn policy() -> Result<Value, String> {
    let path = root().join("policies/decart.json");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut policy: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let digest: String = Sha256::digest(API_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    policy["teams"] = json!([{"id": "acme", "kind": "organization"}]);
    policy["api_keys"] = json!([{"id": "backend", "sha256": digest, "team": "acme"}]);
    let routes = policy["routes"].as_array_mut().ok_or("a policy without routes")?;
    let shortest = routes.iter_mut().find_map(|route| route.pointer_mut("/mint/request/session_seconds/min"));
    *shortest.ok_or("a policy whose mint caps no session")? = json!(1);
    Ok(policy)
}

pub(super) fn start(pieces: &Pieces) -> Result<World, String> {
    World::start(pieces, &policy()?)
}

impl World {
    /// A client token with these bounds.
    pub(super) fn mint_client_token(&self, bounds: &Value) -> Result<String, String> {
        let request = Request::new("POST", "/v1/client/tokens").header("x-api-key", API_KEY).json(bounds);
        let answer: Answer = client::exchange(self.address(), &request)?;
        let token = answer.json()["apiKey"].as_str().map(str::to_owned);
        token.ok_or_else(|| format!("no token: {} {}", answer.status, answer.text()))
    }
}

/// A handshake with a token.
pub(super) fn handshake(token: &str, model: &str) -> Request {
    Request::websocket(&format!("/v1/stream?api_key={token}&model={model}"))
}
