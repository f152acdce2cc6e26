//! Credentials revoked before their expiry: by the admin route, at once on one gateway and in the declared time on all,
//! and by the policy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::store::{Crowd, Fleet, in_redis, tally, with_redis};
use super::{ALLOWED, KEY, digest, policy, same, status};
use crate::support::client::exchange;
use crate::support::corpus::Request;
use crate::support::gateway::Pieces;
use crate::support::poll;
use crate::support::real_now;

const CLIENTS: usize = 32;
/// Two keys of `acme-west`, and one of another organization that may revoke too.
const WEST_KEY: &str = "demo_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const SPARE_KEY: &str = "demo_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const RIVAL_KEY: &str = "demo_cccccccccccccccccccccccccccccccc";
const WEST_NUMBER: &str = "+15551239999";

/// Returns the shared policy with a team below `acme`, a rival, and a route to revoke.
fn with_admin() -> Value {
    let mut policy = policy();
    let scopes = json!(["tokens:mint", "calls:write", "keys:revoke"]);
    policy["platform"]["scopes"] = scopes.clone();
    policy["api_keys"][0]["scopes"] = scopes.clone();
    let key = |id: &str, key: &str, team: &str| json!({"id": id, "sha256": digest(key), "team": team, "scopes": scopes});
    let mut add = |list: &str, entry: Value| policy[list].as_array_mut().map(|list| list.push(entry));
    add(
        "teams",
        json!({"id": "acme-west", "kind": "sub_entity", "parent": "acme", "numbers": [WEST_NUMBER]}),
    );
    add("teams", json!({"id": "rival", "kind": "organization"}));
    add("api_keys", key("west", WEST_KEY, "acme-west"));
    add("api_keys", key("spare", SPARE_KEY, "acme-west"));
    add("api_keys", key("rival", RIVAL_KEY, "rival"));
    add(
        "routes",
        json!({
            "id": "revoke", "match": "POST /v1/revocations", "accept": ["api_key"], "scopes": ["keys:revoke"],
            "revoke": {"reach": "own"}
        }),
    );
    policy
}

fn call_from_west(credential: &str) -> Request {
    let asked = json!({"from_number": WEST_NUMBER, "to_number": ALLOWED});
    Request::new("POST", "/v1/calls").bearer(credential).json(&asked)
}

fn west_token(fleet: &Fleet, key: &str) -> Result<String, String> {
    fleet.mint_with(key, json!({"from_numbers": [WEST_NUMBER]}))
}

/// The claims of a token, without a look at its signature.
fn claim(token: &str, name: &str) -> Result<String, String> {
    let claims = token.split('.').nth(1).ok_or("no token")?;
    let claims = Base64UrlUnpadded::decode_vec(claims).map_err(|error| error.to_string())?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|error| error.to_string())?;
    claims[name].as_str().map(str::to_owned).ok_or_else(|| format!("no `{name}` in {claims}"))
}

/// Revokes at the first gateway and returns its answer.
fn revoke(fleet: &Fleet, key: &str, what: &Value) -> Result<Value, String> {
    let request = Request::new("POST", "/v1/revocations").bearer(key).json(what);
    let answer = exchange(fleet.address(0)?, &request)?;
    status(&format!("revoking {what}"), &answer, 200)?;
    Ok(answer.json())
}

/// One revocation, with the credentials it stops and those it spares.
struct Revocation {
    what: Value,
    stopped: Vec<(&'static str, String)>,
    spared: Vec<(&'static str, String)>,
}

/// Returns every kind of revocation, the narrow ones first, since the stopped credentials stay stopped.
fn ways(fleet: &Fleet) -> Result<Vec<Revocation>, String> {
    let west = |fleet| west_token(fleet, WEST_KEY);
    let (lost, other, spare) = (west(fleet)?, west(fleet)?, west_token(fleet, SPARE_KEY)?);
    let own = |text: &str| text.to_owned();
    Ok(vec![
        Revocation {
            what: json!({"token": claim(&lost, "jti")?}),
            stopped: vec![("the token", lost)],
            spared: vec![("another token", other.clone()), ("its key", own(WEST_KEY))],
        },
        Revocation {
            what: json!({"tokens_of_key": "west"}),
            stopped: vec![("a token of the key", other)],
            spared: vec![("the key itself", own(WEST_KEY)), ("another key's token", spare.clone())],
        },
        Revocation {
            what: json!({"tokens_of_team": "acme"}),
            stopped: vec![("a token of a team below", spare)],
            spared: vec![("a key of it", own(SPARE_KEY))],
        },
        Revocation {
            what: json!({"key": "west"}),
            stopped: vec![("the key", own(WEST_KEY))],
            spared: vec![("another key", own(SPARE_KEY))],
        },
    ])
}

/// With one gateway: from the answer on, no worker accepts the credential, even on open connections.
pub fn at_once_on_every_worker(pieces: &Pieces) -> Result<(), String> {
    let fleet = Fleet::local(pieces, &with_admin(), 2)?;
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    check_foreign_ids_are_refused(&fleet)?;
    for way in ways(&fleet)? {
        let context = |problem: String| format!("{}: {problem}", way.what);
        let all = || way.stopped.iter().chain(&way.spared);
        expect(&fleet, &mut crowd, all(), 200).map_err(context)?;
        let answer = revoke(&fleet, KEY, &way.what)?;
        let expected = json!({"revoked": true, "strength": "node", "within_seconds": 0});
        same("the answer", answer, expected)?;
        expect(&fleet, &mut crowd, way.stopped.iter(), 401).map_err(context)?;
        expect(&fleet, &mut crowd, way.spared.iter(), 200).map_err(context)?;
    }
    mint_again(&fleet)?;
    fleet.counts_agree()
}

/// With several gateways: on each of them within the time that the answer states.
pub fn in_time_on_all_gateways() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(with_admin(), &redis);
        policy["store"]["revocations"] = json!({"refresh_seconds": 1});
        let fleet = Fleet::shared(pieces, redis, &policy, 2)?;
        let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
        check_foreign_ids_are_refused(&fleet)?;
        for way in ways(&fleet)? {
            let context = |problem: String| format!("{}: {problem}", way.what);
            let all = || way.stopped.iter().chain(&way.spared);
            expect(&fleet, &mut crowd, all(), 200).map_err(context)?;
            let answer = revoke(&fleet, KEY, &way.what)?;
            let begin = Instant::now();
            let expected = json!({"revoked": true, "strength": "fleet", "within_seconds": 2});
            same("the answer", answer, expected)?;
            std::thread::sleep(Duration::from_secs(2).saturating_sub(begin.elapsed()));
            expect(&fleet, &mut crowd, way.stopped.iter(), 401).map_err(context)?;
            expect(&fleet, &mut crowd, way.spared.iter(), 200).map_err(context)?;
        }
        mint_again(&fleet)?;
        fleet.counts_agree()
    })
}

/// Checks that every connection gets the same answer.
fn expect<'a>(
    fleet: &Fleet,
    crowd: &mut Crowd,
    credentials: impl Iterator<Item = &'a (&'static str, String)>,
    expected: u16,
) -> Result<(), String> {
    for (what, credential) in credentials {
        let before = fleet.upstream.count();
        let answers = crowd.at_once(&call_from_west(credential))?;
        same(what, tally(&answers), BTreeMap::from([(expected, CLIENTS)]))?;
        let released = if expected == 200 { CLIENTS } else { 0 };
        same(&format!("{what}: requests upstream"), fleet.upstream.count() - before, released)?;
    }
    Ok(())
}

/// Ids of other organizations and unknown ids get one and the same answer.
fn check_foreign_ids_are_refused(fleet: &Fleet) -> Result<(), String> {
    let attempts = [
        (RIVAL_KEY, json!({"key": "west"})),
        (RIVAL_KEY, json!({"tokens_of_key": "west"})),
        (RIVAL_KEY, json!({"tokens_of_team": "acme-west"})),
        (WEST_KEY, json!({"tokens_of_team": "acme"})),
        (KEY, json!({"key": "unknown"})),
    ];
    let mut bodies = Vec::new();
    for (key, what) in &attempts {
        let request = Request::new("POST", "/v1/revocations").bearer(key).json(what);
        let answer = exchange(fleet.address(0)?, &request)?;
        status(&format!("revoking {what}"), &answer, 403)?;
        bodies.push(answer.json());
    }
    bodies.dedup();
    same("different answers", bodies.len(), 1)
}

/// Tokens minted after the revocation are accepted.
fn mint_again(fleet: &Fleet) -> Result<(), String> {
    let (mint, limit) = (|| west_token(fleet, SPARE_KEY), Duration::from_secs(6));
    // Issued in the same second, it is revoked as well.
    poll("a token minted after the revocation to work", limit, || {
        let answer = exchange(fleet.address(0).ok()?, &call_from_west(&mint().ok()?)).ok()?;
        (answer.status == 200).then_some(())
    })
}

/// A policy that revokes binds the next request of every open connection.
pub fn by_the_policy(pieces: &Pieces) -> Result<(), String> {
    let mut policy = with_admin();
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    let mut list = Vec::new();
    for way in ways(&fleet)? {
        let context = |problem: String| format!("{}: {problem}", way.what);
        expect(&fleet, &mut crowd, way.stopped.iter().chain(&way.spared), 200).map_err(context)?;
        let mut entry = way.what.clone();
        if entry.get("key").or(entry.get("token")).is_none() {
            entry["before"] = json!(real_now());
        }
        list.push(entry);
        policy["revocations"] = json!(list);
        fleet.deliver(&policy)?;
        expect(&fleet, &mut crowd, way.stopped.iter(), 401).map_err(context)?;
        expect(&fleet, &mut crowd, way.spared.iter(), 200).map_err(context)?;
    }
    mint_again(&fleet)?;
    // A policy without the revocations allows the credentials again.
    policy.as_object_mut().into_iter().for_each(|policy| _ = policy.remove("revocations"));
    fleet.deliver(&policy)?;
    expect(&fleet, &mut crowd, [("the key", WEST_KEY.to_owned())].iter(), 200)?;
    fleet.counts_agree()
}

/// Revocations that cannot be fetched: once stale, requests are refused or served, as the policy declares.
pub fn too_old() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(with_admin(), &redis);
        policy["store"]["revocations"] =
            json!({"refresh_seconds": 1, "stale_seconds": 3, "when_stale": "refuse"});
        let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        let request = call_from_west(WEST_KEY);
        let answer = |fleet: &Fleet| exchange(fleet.address(0)?, &request);
        status("while they are fresh", &answer(&fleet)?, 200)?;
        fleet.redis()?.kill_bridge();
        status("just after the store has gone", &answer(&fleet)?, 200)?;
        let asking = Request::new("POST", "/v1/revocations").bearer(KEY).json(&json!({"key": "spare"}));
        status("a revocation without the store", &exchange(fleet.address(0)?, &asking)?, 503)?;
        poll("them to be too old", Duration::from_secs(8), || {
            (answer(&fleet).ok()?.status == 503).then_some(())
        })?;
        poll("every worker to refuse", Duration::from_secs(3), || at_every_worker(&fleet, &request, 503))?;
        let before = fleet.upstream.count();
        (0..4).try_for_each(|_| at_every_worker(&fleet, &request, 503).ok_or("a stale request is served"))?;
        same("requests upstream", fleet.upstream.count(), before)?;
        fleet.redis()?.start_bridge()?;
        poll("them to be fresh again", Duration::from_secs(6), || at_every_worker(&fleet, &request, 200))?;

        policy["store"]["revocations"]["when_stale"] = json!("serve");
        fleet.deliver(&policy)?;
        fleet.redis()?.kill_bridge();
        std::thread::sleep(Duration::from_secs(5));
        at_every_worker(&fleet, &request, 200).ok_or("not served with what is known")?;
        Ok(())
    })
}

/// Returns `Some` if every worker gives this answer.
fn at_every_worker(fleet: &Fleet, request: &Request, status: u16) -> Option<()> {
    let answers = Crowd::connect(&fleet.addresses(), 16).ok()?.at_once(request).ok()?;
    (tally(&answers) == BTreeMap::from([(status, 16)])).then_some(())
}
