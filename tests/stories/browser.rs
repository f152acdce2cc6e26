//! A headless Chromium: a page of another origin calls with a token, reads a refusal, and cannot read a mint.

use std::path::Path;

use libtest_mimic::{Completion, Failed};
use serde_json::json;

use super::{ALLOWED, KEY, OWNED, World, policy, same};
use crate::support::browser::Site;
use crate::support::gateway::{Pieces, unchanged};
use crate::support::require::{Piece, require};

/// The script does what an application would: `fetch` with its credential in a header, hence with a preflight.
const SCRIPT: &str = r#"
  const post = async (path, credential, body) => {
    try {
      const response = await fetch(GATEWAY + path, {
        method: 'POST', body: JSON.stringify(body),
        headers: {[HEADER]: SCHEME + credential, 'content-type': 'application/json'},
      });
      return {status: response.status, body: await response.json()};
    } catch (error) {
      return {unreadable: true};
    }
  };
  const run = async () => {
    const call = to => ({from_number: OWNED, to_number: to});
    report({
      allowed: await post('/v1/calls', TOKEN, call(ALLOWED)),
      refused: await post('/v1/calls', TOKEN, call('+15550009999')),
      stranger: await post('/v1/calls', 'ct_e30.e30.e30', call(ALLOWED)),
      mint: await post('/v1/client-tokens', KEY, {from_numbers: [OWNED]}),
    });
  };
  run();"#;

/// Runs a test that needs a browser as well.
pub(super) fn with_browser(story: fn(&Pieces, &Path) -> Result<(), String>) -> Result<Completion, Failed> {
    match (Pieces::find(), require(Piece::Chromium)) {
        (Err(skip), _) | (_, Err(skip)) => skip.end(),
        (Ok(pieces), Ok(chromium)) => Ok(story(&pieces, &chromium).map(|()| Completion::Completed)?),
    }
}

pub fn page_reads_a_refusal() -> Result<Completion, Failed> {
    with_browser(|pieces, chromium| story(pieces, chromium, ("authorization", "Bearer ")))
}

/// A preflight must allow the header in which the policy looks for the credential.
pub fn page_sends_its_credential_in_another_header() -> Result<Completion, Failed> {
    with_browser(|pieces, chromium| story(pieces, chromium, ("x-api-key", "")))
}

fn story(pieces: &Pieces, chromium: &Path, (header, scheme): (&str, &str)) -> Result<(), String> {
    let site = Site::start()?;
    let origin: &'static str = Box::leak(site.origin().into_boxed_str());
    let mut policy = policy();
    policy["credentials"]["locations"] =
        json!([{"header": "authorization", "scheme": "Bearer"}, {"header": "x-api-key"}]);
    let world = World::start_with(pieces, &policy.to_string(), &[origin], &unchanged)?;
    let constants = [
        ("HEADER", header.to_owned()),
        ("SCHEME", scheme.to_owned()),
        ("GATEWAY", format!("http://{}", world.address())),
        ("TOKEN", world.mint()?),
        ("OWNED", OWNED.to_owned()),
        ("ALLOWED", ALLOWED.to_owned()),
        ("KEY", KEY.to_owned()),
    ];
    let findings = site.visit(chromium, &constants, SCRIPT)?;

    same("an allowed call", &findings["allowed"]["status"], &json!(200))?;
    same("a refused call", &findings["refused"]["status"], &json!(403))?;
    same("its reason, read by the page", &findings["refused"]["body"]["error"]["code"], &json!("forbidden"))?;
    same("an expired credential", &findings["stranger"]["status"], &json!(401))?;
    same("the mint route", &findings["mint"], &json!({"unreadable": true}))?;
    world.upstream_saw(1)
}
