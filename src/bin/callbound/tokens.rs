//! Minting and inspecting client tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use callbound::credential::peek;
use callbound::decision::{
    DecisionContext, Demands, MintRequest, Rights, mint as mint_token, no_failures, no_host, no_peer,
};
use callbound::json::Json;
use callbound::policy::{MintRule, Policy, Route};
use clap::Args;

use crate::keys;
use crate::policies::Files;

/// Arguments of `mint`.
#[derive(Args)]
pub struct Mint {
    #[command(flatten)]
    files: Files,
    /// The id of the API key to mint from
    #[arg(long)]
    key: String,
    /// The mint route's id, when the policy has more than one
    #[arg(long)]
    route: Option<String>,
    /// A member of the mint request and its JSON value; repeatable
    #[arg(long = "set", value_name = "MEMBER=JSON")]
    members: Vec<String>,
}

/// `mint`: the token alone on standard output.
pub fn mint(arguments: &Mint) -> Result<(), String> {
    let policy = arguments.files.compile()?;
    let (route, rule) = mint_route(&policy, arguments.route.as_deref())?;
    let key =
        policy.keys.with_id(&arguments.key).ok_or_else(|| format!("there is no key `{}`", arguments.key))?;
    let body = request_body(&arguments.members)?;
    let body = Json::parse(body.as_bytes()).map_err(|error| format!("--set: {error}"))?;
    let random = |bytes: &mut [u8]| keys::fill(bytes).is_ok();
    let moment = DecisionContext {
        now: now()?,
        random: &random,
        host_verify: &no_host,
        peer: &no_peer,
        epoch: Some(0),
        has_failed: &no_failures,
    };
    let minted = Rights::of_key(&policy, key, moment.now)
        .and_then(|rights| rights.meets(&Demands::of(route)).map(|()| rights))
        .and_then(|rights| mint_token(&policy, rule, &rights, &MintRequest::read(rule, &body)?, &moment))
        .map_err(|denial| match denial.field {
            Some(field) => format!("{field}: {} ({})", denial.reason.message(), denial.reason),
            None => format!("{} ({})", denial.reason.message(), denial.reason),
        })?;
    println!("{}", minted.token);
    Ok(())
}

fn mint_route<'p>(policy: &'p Policy, id: Option<&str>) -> Result<(&'p Route, &'p MintRule), String> {
    let named = policy.routes.iter().filter(|route| id.is_none_or(|id| route.id == id));
    let mut routes = named.filter_map(|route| Some((route, route.mint()?)));
    match (routes.next(), routes.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err("the policy has no such mint route".into()),
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

/// Arguments of `inspect`.
#[derive(Args)]
pub struct Inspect {
    /// The token, with its prefix; `-` reads it from standard input
    token: String,
    /// Verify it with this policy and this environment's secrets; further files are merged over it
    #[arg(long, num_args = 1..)]
    policy: Vec<std::path::PathBuf>,
}

/// `inspect`.
pub fn inspect(arguments: &Inspect) -> Result<(), String> {
    let mut token = arguments.token.clone();
    if token == "-" {
        token.clear();
        std::io::stdin().read_line(&mut token).map_err(|error| format!("standard input: {error}"))?;
    }
    let token = token.trim();
    let start = token.find("eyJ").ok_or("not a token: no JOSE header follows a prefix")?;
    let (prefix, compact) = token.split_at_checked(start).ok_or("not a token")?;
    let content = peek(compact).map_err(|error| error.to_string())?;
    println!("prefix  {prefix}\nheader  {}\nclaims  {}", content.header, content.claims);
    if arguments.policy.is_empty() {
        println!("nothing was verified; give --policy");
        return Ok(());
    }
    let policy = Files { policies: arguments.policy.clone() }.compile()?;
    let (_, family) = policy.family_of(token).ok_or("no token family of this policy has that prefix")?;
    let verified = family.verify(token, now()?, &no_host).map_err(|error| error.to_string())?;
    let key = policy.keys.with_id(&verified.key_id).ok_or("the key it was minted from is gone")?;
    if key.revoked {
        return Err(format!("the key it was minted from, `{}`, is revoked", key.id));
    }
    println!(
        "verified: family `{}`, key `{}`, {} s left",
        family.name,
        key.id,
        verified.exp.saturating_sub(now()?)
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the tool may look at the clock; the core may not")]
pub fn now() -> Result<u64, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| "the system's clock is not set")?;
    Ok(since.as_secs())
}
