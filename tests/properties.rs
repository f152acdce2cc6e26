//! Properties that hold for every request, not only for known ones.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use callbound::decision::{Decision, DecisionContext, Effect, Engine, Step};
use callbound::policy::{Secrets, compile};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

#[path = "support/recipe.rs"]
#[allow(dead_code, clippy::indexing_slicing, missing_docs, reason = "shared with other suites")]
mod recipe;

use recipe::{Mint, Recipe};

const NOW: u64 = 1_800_000_000;
const MASTER: &str = "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_";
const KEY: &str = "demo_00112233445566778899aabbccddeeff";
const SCOPES: &[&str] = &["tokens:mint", "calls:write", "sms:write"];
const OWNED: &[&str] = &["+15551230001", "+15551230002"];
const NUMBERS: &[&str] =
    &["+15551230001", "+15551230002", "+15550001111", "+15550002222", "+442079460123", "+19005551234"];

/// Values of a text bound; `m-2` has an alias.
const MODELS: &[&str] = &["m-1", "m-2", "m-3"];

/// A key, optionally one of its tokens, and a call.
#[derive(Clone, Debug)]
struct Scene {
    key_scopes: Vec<String>,
    key_from: Option<Vec<String>>,
    key_to: Option<Vec<String>>,
    revoked: bool,
    team_scopes: Option<Vec<String>>,
    feature_on: bool,
    with_token: bool,
    token_scopes: Vec<String>,
    token_from: Option<Vec<String>>,
    token_to: Option<Vec<String>>,
    from: String,
    to: String,
    path: &'static str,
    key_model: Option<Vec<String>>,
    team_model: Option<Vec<String>>,
    token_model: Option<Vec<String>>,
    model: &'static str,
}

/// Removes one right from a credential.
#[derive(Clone, Copy, Debug)]
enum Narrowing {
    DropKeyScope,
    DropTeamScope,
    DropTokenScope,
    ShrinkKeyFrom,
    ShrinkKeyTo,
    ShrinkTokenFrom,
    ShrinkTokenTo,
    ShrinkKeyModel,
    ShrinkTeamModel,
    ShrinkTokenModel,
    Revoke,
    FeatureOff,
}

const NARROWINGS: &[Narrowing] = &[
    Narrowing::DropKeyScope,
    Narrowing::DropTeamScope,
    Narrowing::DropTokenScope,
    Narrowing::ShrinkKeyFrom,
    Narrowing::ShrinkKeyTo,
    Narrowing::ShrinkTokenFrom,
    Narrowing::ShrinkTokenTo,
    Narrowing::ShrinkKeyModel,
    Narrowing::ShrinkTeamModel,
    Narrowing::ShrinkTokenModel,
    Narrowing::Revoke,
    Narrowing::FeatureOff,
];

impl Scene {
    fn narrowed(&self, how: Narrowing, at: &Index) -> Self {
        let mut scene = self.clone();
        match how {
            Narrowing::DropKeyScope => drop_one(&mut scene.key_scopes, at),
            Narrowing::DropTeamScope => {
                drop_one(scene.team_scopes.get_or_insert_with(|| strings(SCOPES)), at);
            }
            Narrowing::DropTokenScope => drop_one(&mut scene.token_scopes, at),
            Narrowing::ShrinkKeyFrom => shrink(&mut scene.key_from, NUMBERS, at),
            Narrowing::ShrinkKeyTo => shrink(&mut scene.key_to, NUMBERS, at),
            Narrowing::ShrinkTokenFrom => shrink(&mut scene.token_from, NUMBERS, at),
            Narrowing::ShrinkTokenTo => shrink(&mut scene.token_to, NUMBERS, at),
            Narrowing::ShrinkKeyModel => shrink(&mut scene.key_model, MODELS, at),
            Narrowing::ShrinkTeamModel => shrink(&mut scene.team_model, MODELS, at),
            Narrowing::ShrinkTokenModel => shrink(&mut scene.token_model, MODELS, at),
            Narrowing::Revoke => scene.revoked = true,
            Narrowing::FeatureOff => scene.feature_on = false,
        }
        scene
    }

    fn policy(&self) -> Value {
        let digest: String = Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut ceiling = Map::new();
        self.key_from.iter().for_each(|list| _ = ceiling.insert("from".into(), json!(list)));
        self.key_to.iter().for_each(|list| _ = ceiling.insert("to".into(), json!(list)));
        self.key_model.iter().for_each(|list| _ = ceiling.insert("model".into(), json!(list)));
        let mut team = json!({"id": "acme", "kind": "organization", "numbers": OWNED});
        self.team_model.iter().for_each(|list| team["ceiling"] = json!({"model": list}));
        // A policy refuses an empty list: a scope that no route requires takes its place.
        let scopes = |list: &[String]| if list.is_empty() { json!(["unused"]) } else { json!(list) };
        if let Some(list) = &self.team_scopes {
            team["scopes"] = scopes(list);
        }
        let platform_scopes = [SCOPES, &["unused"]].concat();
        let bounds = json!({
            "from": "/from?", "to": "/to", "model": "query:model?"
        });
        let models = json!({"model": {"values": MODELS, "aliases": {"latest": "m-2"}}});
        json!({
            "version": 1, "host": "envoy",
            "platform": {"features": {"webrtc": self.feature_on}, "scopes": platform_scopes, "bounds": models},
            "credentials": {
                "api_key_formats": [{"prefix": "demo_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
                "locations": [{"header": "authorization", "scheme": "Bearer"}]
            },
            "token_keys": [{"kid": "1", "alg": "HS256", "secret": {"derive": {"env": "MASTER"}}, "sign": true}],
            "tokens": {"ct": {"prefix": "ct_", "issuer": "demo", "ttl_seconds": {"min": 60, "max": 3600, "default": 900}}},
            "teams": [team],
            "api_keys": [{
                "id": "backend", "sha256": digest, "team": "acme", "scopes": scopes(&self.key_scopes),
                "ceiling": ceiling, "revoked": self.revoked
            }],
            "routes": [
                {"id": "dial", "match": "POST /calls", "accept": ["api_key", "ct"], "scopes": ["calls:write"], "bounds": bounds},
                {"id": "room", "match": "POST /rooms/{id}", "accept": ["api_key", "ct"], "features": "webrtc", "scopes": ["sms:write"]},
            ],
            "refusals": {"realm": "demo", "envelope": {"code": "$code"}}
        })
    }

    fn engine(&self) -> Engine {
        let lookup = |_: &str| Some(MASTER.to_owned());
        let policy = compile(self.policy().to_string().as_bytes(), &Secrets::Lookup(&lookup));
        Engine::new(policy.unwrap_or_else(|error| panic!("{error}")))
    }

    fn credential(&self) -> String {
        if !self.with_token {
            return KEY.to_owned();
        }
        let mut claims = json!({"sub": "backend", "team": "acme", "scopes": self.token_scopes});
        self.token_from.iter().for_each(|list| claims["from"] = json!(list));
        self.token_to.iter().for_each(|list| claims["to"] = json!(list));
        self.token_model.iter().for_each(|list| claims["models"] = json!(list));
        token(&self.policy(), &claims)
    }

    fn verdict(&self) -> Decision {
        let authorization = format!("Bearer {}", self.credential());
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = json!({"from": self.from, "to": self.to}).to_string();
        let path = if self.model.is_empty() {
            self.path.to_owned()
        } else {
            format!("{}?{}", self.path, self.model)
        };
        judge(&self.engine(), &request(&path, &headers), body.as_bytes())
    }

    fn is_released(&self) -> bool {
        matches!(self.verdict().effect, Effect::Release(_))
    }
}

fn drop_one(list: &mut Vec<String>, at: &Index) {
    if !list.is_empty() {
        list.remove(at.index(list.len()));
    }
}

/// Adds a bound, or removes one entry of it; an empty list cannot be written.
fn shrink(list: &mut Option<Vec<String>>, all: &[&str], at: &Index) {
    match list {
        None => *list = Some(vec![all[at.index(all.len() - 1)].to_owned()]),
        Some(list) if list.len() > 1 => drop_one(list, at),
        Some(_) => {}
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn token(policy: &Value, claims: &Value) -> String {
    let recipe: Recipe = serde_json::from_value(json!({"family": "ct", "claims": claims})).expect("a recipe");
    let mint = Mint {
        recipes: BTreeMap::from([("token".to_owned(), recipe)]),
        policy: policy.clone(),
        env: BTreeMap::from([("MASTER".to_owned(), MASTER.to_owned())]),
    };
    mint.token("token", NOW).expect("a recipe").expect("a token")
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn request(path: &str, headers: &[(&str, &str)]) -> Pairs {
    let pseudo =
        [(":method", "POST"), (":path", path), (":authority", "api.example.com"), (":scheme", "https")];
    let all = pseudo.iter().chain(headers);
    all.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn judge(engine: &Engine, headers: &Pairs, body: &[u8]) -> Decision {
    let random = |bytes: &mut [u8]| {
        bytes.fill(7);
        true
    };
    let moment = DecisionContext::new(NOW, &random);
    let pairs: Vec<(&[u8], &[u8])> =
        headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    let step = match engine.begin(&pairs, false, &moment) {
        Step::NeedsBody(pending) => engine.finish(*pending, body, &moment),
        step => step,
    };
    match step {
        Step::Decided(verdict) => *verdict,
        _ => panic!("no store and no directory are configured, and the body was given"),
    }
}

fn numbers() -> impl Strategy<Value = Option<Vec<String>>> {
    let some = subsequence(NUMBERS.to_vec(), 1..=4).prop_map(|list| Some(strings(&list)));
    prop_oneof![2 => Just(None), 3 => some]
}

fn models() -> impl Strategy<Value = Option<Vec<String>>> {
    let some = subsequence(MODELS.to_vec(), 1..=3).prop_map(|list| Some(strings(&list)));
    prop_oneof![3 => Just(None), 2 => some]
}

fn scopes() -> impl Strategy<Value = Vec<String>> {
    subsequence(SCOPES.to_vec(), 0..=SCOPES.len()).prop_map(|list| strings(&list))
}

fn number() -> impl Strategy<Value = String> {
    select(NUMBERS).prop_map(str::to_owned)
}

prop_compose! {
    /// Generates mostly allowed scenes, so that narrowing them is meaningful.
    fn scene()(
        (key_scopes, token_scopes) in (prop_oneof![4 => Just(strings(SCOPES)), 1 => scopes()],
                                       prop_oneof![4 => Just(strings(SCOPES)), 1 => scopes()]),
        (key_from, key_to, token_from, token_to) in (numbers(), numbers(), numbers(), numbers()),
        team_scopes in prop_oneof![3 => Just(None), 1 => scopes().prop_map(Some)],
        (revoked, feature_on, with_token) in (prop::bool::weighted(0.1), prop::bool::weighted(0.8), any::<bool>()),
        from in prop_oneof![4 => select(OWNED).prop_map(str::to_owned), 1 => number()],
        to in number(),
        path in select(&["/calls", "/rooms/1"][..]),
        (key_model, team_model, token_model) in (models(), models(), models()),
        model in select(&["", "model=m-1", "model=m-2", "model=latest", "model=m%2D3", "model=m-4"][..]),
    ) -> Scene {
        Scene {
            key_scopes, key_from, key_to, revoked, team_scopes, feature_on, with_token, token_scopes, token_from,
            token_to, from, to, path, key_model, team_model, token_model, model,
        }
    }
}

/// Header names with and without a meaning here.
fn header_name() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        ":method",
        ":path",
        ":authority",
        "authorization",
        "content-type",
        "content-length",
        "content-encoding",
        "x-callbound-key",
        "x_callbound_team",
        "x-request-id",
        "upgrade",
        "connection",
        "cookie",
        "x-api-key",
        "proxy-authorization",
        "transfer-encoding",
        "x-http-method-override",
        "",
    ];
    prop_oneof![
        3 => select(known.to_vec()).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ]
}

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "Bearer ",
        "Bearer",
        "POST",
        "/calls",
        "/rooms/1",
        "/calls?token=ct_a.b.c",
        "/calls?model=m-1",
        "/calls?model=m-1&Model=%6d",
        "/calls?model=%",
        "/calls?&&=&model",
        "application/json",
        "identity",
        "x-callbound-key",
        "ct_e30.e30.e30",
        "Bearer ct_e30.e30.e30",
        "Bearer demo_",
        KEY,
        "websocket",
    ];
    prop_oneof![
        select(known.to_vec()).prop_map(|value| value.as_bytes().to_vec()),
        vec(any::<u8>(), 0..60),
        vec(any::<u8>(), 0..60).prop_map(|bytes| [b"Bearer ct_", bytes.as_slice()].concat()),
    ]
}

/// Bodies that are nearly valid, and arbitrary bytes.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let good =
        json!({"from": OWNED[0], "to": "+15550001111", "x": [1, {"y": null}]}).to_string().into_bytes();
    let bitten = (Just(good), any::<Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let nested = (1usize..3000).prop_map(|depth| [b"{\"to\":".as_slice(), &b"[".repeat(depth)].concat());
    prop_oneof![3 => bitten, 1 => vec(any::<u8>(), 0..200), 1 => nested]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn open_scene() -> Scene {
    Scene {
        key_scopes: strings(SCOPES),
        key_from: None,
        key_to: None,
        revoked: false,
        team_scopes: None,
        feature_on: true,
        with_token: false,
        token_scopes: strings(SCOPES),
        token_from: None,
        token_to: None,
        from: OWNED[0].to_owned(),
        to: "+15550001111".to_owned(),
        path: "/calls",
        key_model: None,
        team_model: None,
        token_model: None,
        model: "",
    }
}

fn outcome(verdict: &Decision) -> (bool, Option<&'static str>) {
    let reason = verdict.record.denial.as_ref().map(|denial| denial.reason.as_str());
    (matches!(verdict.effect, Effect::Release(_)), reason)
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn narrowed_credential_never_gains_rights(scene in scene(), how in select(NARROWINGS), at in any::<Index>()) {
        let narrowed = scene.narrowed(how, &at);
        if narrowed.is_released() {
            prop_assert!(scene.is_released(), "allowed only after {how:?}: {:?}", scene.verdict().record.denial);
        }
    }

    #[test]
    fn token_never_exceeds_its_key(scene in scene()) {
        let by_token = Scene { with_token: true, ..scene.clone() };
        let by_key = Scene { with_token: false, ..scene };
        if by_token.is_released() {
            let denial = by_key.verdict().record.denial;
            // A token can only exceed its key by naming a premium destination, which none does here.
            prop_assert!(denial.is_none(), "the key itself is refused: {denial:?}");
        }
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn engine_with_arbitrary_bytes_does_not_panic(
        strange in vec((header_name(), header_value()), 0..8),
        with_good_head in any::<bool>(),
        body in body(),
    ) {
        thread_local!(static ENGINE: Engine = open_scene().engine());
        let authorization = format!("Bearer {KEY}");
        let good = request("/calls", &[("authorization", &authorization), ("content-type", "application/json")]);
        let mut headers = if with_good_head { good } else { Vec::new() };
        headers.extend(strange);
        ENGINE.with(|engine| drop(judge(engine, &headers, &body)));
    }

    #[test]
    fn header_order_does_not_change_decision(
        strange in vec((header_name(), header_value()), 0..4),
        order in vec(any::<u32>(), 12),
        body in body(),
    ) {
        thread_local!(static ENGINE: Engine = open_scene().engine());
        let authorization = format!("Bearer {KEY}");
        let mut headers = request("/calls", &[("authorization", &authorization), ("content-type", "application/json")]);
        headers.extend(strange);
        let mut shuffled: Vec<_> = order.into_iter().chain(0..).zip(headers.clone()).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let shuffled: Pairs = shuffled.into_iter().map(|(_, pair)| pair).collect();
        ENGINE.with(|engine| {
            let (one, other) = (judge(engine, &headers, &body), judge(engine, &shuffled, &body));
            prop_assert_eq!(outcome(&one), outcome(&other));
            Ok(())
        })?;
    }

    #[test]
    fn empty_credential_is_refused(
        value in prop_oneof![
            "[ \t]{0,6}",
            "(?i)bearer[ \t]{0,6}",
            "Bearer (demo_|ct_)?[ \t]{0,3}",
            "(?i)(basic|digest|token) [a-z=]{0,8}",
        ],
        name in select(vec!["authorization", "x-api-key", "x-callbound-key"]),
    ) {
        thread_local!(static ENGINE: Engine = open_scene().engine());
        let headers = request("/calls", &[(name, &value), ("content-type", "application/json")]);
        let body = json!({"from": OWNED[0], "to": "+15550001111"}).to_string();
        ENGINE.with(|engine| {
            let verdict = judge(engine, &headers, body.as_bytes());
            prop_assert!(!outcome(&verdict).0, "released for {name}: {value:?}");
            Ok(())
        })?;
    }
}

/// Properties of refusals would be empty if everything were refused.
#[test]
fn generated_scenes_are_often_allowed() {
    let mut runner = TestRunner::deterministic();
    let scenes = (0..200).filter_map(|_| scene().new_tree(&mut runner).ok());
    let open = scenes.filter(|scene| scene.current().is_released()).count();
    assert!((40..180).contains(&open), "{open} of 200");
}

#[test]
fn unrestricted_scene_is_allowed() {
    assert!(open_scene().is_released());
    assert!(Scene { with_token: true, ..open_scene() }.is_released());
    assert!(Scene { path: "/rooms/1", ..open_scene() }.is_released());
    let bound = Scene { with_token: true, token_model: Some(strings(&["m-2"])), ..open_scene() };
    assert!(Scene { model: "model=latest", ..bound.clone() }.is_released());
    assert!(!Scene { model: "model=m-1", ..bound.clone() }.is_released());
    assert!(!bound.is_released(), "a bounded token without a model");
}

#[test]
fn token_without_valid_principal_is_refused() {
    let policy = open_scene().policy();
    let engine = open_scene().engine();
    let body = json!({"from": OWNED[0], "to": "+15550001111"}).to_string();
    for claims in [
        json!({"sub": "", "team": "acme", "scopes": ["calls:write"]}),
        json!({"sub": " ", "team": "acme", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "team": "", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "team": "acme", "user": "u1", "scopes": ["calls:write"]}),
        json!({"sub": null, "team": "acme", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "team": null, "scopes": ["calls:write"]}),
        json!({"sub": "backend", "team": "acme", "jti": "", "scopes": ["calls:write"]}),
        json!({"sub": "unknown", "team": "acme", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "team": "other", "scopes": ["calls:write"]}),
        json!({"sub": "backend", "user": "acme", "scopes": ["calls:write"]}),
    ] {
        let authorization = format!("Bearer {}", token(&policy, &claims));
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let verdict = judge(&engine, &request("/calls", &headers), body.as_bytes());
        let (released, reason) = outcome(&verdict);
        assert!(!released && reason.is_some(), "{claims}: {reason:?}");
    }
}
