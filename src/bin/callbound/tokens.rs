//! Client tokens: `mint` and `inspect`.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use callbound::credential::{TokenVerifier, VerificationContext, peek};
use callbound::decision::{DecisionContext, Demands, MintRequest, Principal, Rights, mint as mint_token};
use callbound::json::Json;
use callbound::policy::{MintRule, Policy, Route, TokenSource};
use clap::Args;

use crate::keys;
use crate::output::{escaped, print};
use crate::policies::Files;

/// Arguments of `callbound mint`.
#[derive(Args)]
pub struct Mint {
    #[command(flatten)]
    files: Files,
    /// Id of the API key to mint from
    #[arg(long)]
    key: String,
    /// Id of the mint route, where the policy has several
    #[arg(long)]
    route: Option<String>,
    /// A member of the mint request and its JSON value; repeatable
    #[arg(long = "set", value_name = "MEMBER=JSON")]
    members: Vec<String>,
}

/// Runs `callbound mint`: prints only the token.
pub fn mint(arguments: &Mint) -> Result<(), String> {
    let policy = arguments.files.compile()?;
    let (route, rule) = mint_route(&policy, arguments.route.as_deref())?;
    let key = policy
        .keys
        .with_id(&arguments.key)
        .ok_or_else(|| format!("--key {}: the policy has no API key with this id", arguments.key))?;
    let body = request_body(&arguments.members)?;
    let body = Json::parse(body.as_bytes()).map_err(|error| format!("--set: {error}"))?;
    let random = |bytes: &mut [u8]| keys::fill(bytes).is_ok();
    let now = now()?;
    let context = DecisionContext::new(now, &random).with_epoch(Some(0));
    let minted = Rights::of_key(&policy, key, now)
        .and_then(|rights| rights.meets(&Demands::of(route)).map(|()| rights))
        .and_then(|rights| mint_token(rule, &rights, &MintRequest::read(rule, &body)?, &context))
        .map_err(|denial| match denial.field {
            Some(field) => format!("{field}: {} ({})", denial.reason.message(), denial.reason),
            None => format!("{} ({})", denial.reason.message(), denial.reason),
        })?;
    print(minted.token)
}

fn mint_route<'p>(policy: &'p Policy, id: Option<&str>) -> Result<(&'p Route, &'p MintRule), String> {
    let named = policy.routes.iter().filter(|route| id.is_none_or(|id| route.id == id));
    let mut routes = named.filter_map(|route| Some((route, route.mint()?)));
    match (routes.next(), routes.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err("the policy has no mint route, or none with this id".into()),
        (Some(_), Some(_)) => Err("the policy has several mint routes; name one with --route".into()),
    }
}

fn request_body(members: &[String]) -> Result<String, String> {
    let pairs = members.iter().map(|member| {
        let (name, value) =
            member.split_once('=').ok_or_else(|| format!("--set {member}: expected MEMBER=JSON"))?;
        let name = serde_json::to_string(name).map_err(|error| error.to_string())?;
        Ok(format!("{name}:{value}"))
    });
    Ok(format!("{{{}}}", pairs.collect::<Result<Vec<_>, String>>()?.join(",")))
}

/// Arguments of `callbound inspect`.
#[derive(Args)]
pub struct Inspect {
    /// The token, with its prefix; `-` reads it from standard input
    token: String,
    /// Verify it with this policy and this environment's secrets; further files are merged over it
    #[arg(long, num_args = 1..)]
    policy: Vec<std::path::PathBuf>,
}

/// Runs `callbound inspect`.
pub fn inspect(arguments: &Inspect) -> Result<(), String> {
    let mut token = arguments.token.clone();
    if token == "-" {
        token.clear();
        std::io::stdin().read_line(&mut token).map_err(|error| format!("standard input: {error}"))?;
    }
    let token = token.trim();
    let start = token.find("eyJ").ok_or("not a token: expected `eyJ…`, with or without a prefix")?;
    let (prefix, compact) = token.split_at_checked(start).ok_or("not a token")?;
    let content = peek(compact).map_err(|error| error.to_string())?;
    print(format_args!("prefix  {}", escaped(prefix)))?;
    print(format_args!("header  {}", escaped(&content.header)))?;
    print(format_args!("claims  {}", escaped(&content.claims)))?;
    match arguments.policy.as_slice() {
        [] => print("not verified; give --policy to verify it"),
        files => verify(token, Files { policies: files.to_vec() }.compile()?),
    }
}

/// Verifies a token as a gateway with this policy would, except for revocations in a store.
fn verify(token: &str, policy: Policy) -> Result<(), String> {
    let family = policy.family_of(token).ok_or("no token family of this policy has that prefix")?;
    let context = VerificationContext { now: now()?, host_verify: &|_, _, _, _| None, fetched_keys: None };
    let verified = family.verify(token, &context).map_err(|error| error.to_string())?;
    let key = policy.keys.with_id(&verified.key_id);
    let key = key.ok_or("the API key it was minted from is no longer in the policy")?;
    let left = verified.exp.saturating_sub(now()?);
    let line = format!("verified: family `{}`, key `{}`, {left} s left", family.name, key.id);
    let source = TokenSource::Family(Rc::clone(family));
    let principal = Principal::Token { source, token: Rc::new(verified), key: Rc::clone(key) };
    // What the engine asks at every use: the key's expiry and owner, bounds that the policy no longer has.
    let rights = Rights::of(&policy, &principal, now()?);
    rights.map_err(|denial| format!("a gateway refuses it: {}", denial.reason.as_str()))?;
    print(line)
}

/// Returns the Unix time in seconds.
#[expect(clippy::disallowed_methods, reason = "the tool may read the clock; the core may not")]
pub fn now() -> Result<u64, String> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| "the system's clock is before 1970; set it")?;
    Ok(since.as_secs())
}
