//! Invalid policies: each is refused with the messages it must give, at the right place, and never with a secret.
//!
//! `tests/policies/*.json` hold the cases: a valid policy, and changes to it with the problems they cause.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use callbound::policy::{ConfigError, Policy, Secrets, compile, merge};
use serde_json::{Value, json};

const MASTER: &str = "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_";

/// A valid policy with changes that make it invalid.
struct File {
    name: String,
    policy: Value,
    cases: Vec<Case>,
}

/// Changes to a policy and the problems they cause; without problems the policy stays valid.
struct Case {
    change: Value,
    problems: Vec<String>,
}

impl Case {
    fn apply(&self, policy: &mut Value) {
        for (pointer, value) in self.change["set"].as_object().into_iter().flatten() {
            set(policy, pointer, value.clone());
        }
        for pointer in self.change["remove"].as_array().into_iter().flatten() {
            remove(policy, pointer.as_str().expect("a pointer"));
        }
    }

    /// The sections it changes.
    fn sections(&self) -> Vec<&str> {
        let set = self.change["set"].as_object().into_iter().flatten().map(|(pointer, _)| pointer.as_str());
        let removed = self.change["remove"].as_array().into_iter().flatten().filter_map(Value::as_str);
        set.chain(removed).filter_map(|pointer| pointer.split('/').nth(1)).collect()
    }
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn file(name: &str) -> File {
    let json = read(&path(&format!("tests/policies/{name}.json")));
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let case = |case: &Value| Case { change: case.clone(), problems: texts(&case["problems"]) };
    let cases = json["cases"].as_array().expect("cases").iter().map(case).collect();
    File { name: name.to_owned(), policy: json["policy"].clone(), cases }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn files() -> Vec<File> {
    ["base", "rich", "counting", "counting-in-memory"].map(file).into()
}

fn base() -> Value {
    file("base").policy
}

fn step<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    let name = name.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Array(items) => &mut items[name.parse::<usize>().expect("an index")],
        value => &mut value[name],
    }
}

/// Sets a value, named by its JSON pointer; members on the way are made.
fn set(policy: &mut Value, pointer: &str, value: Value) {
    *pointer.split('/').skip(1).fold(policy, step) = value;
}

fn remove(policy: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = policy.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    parent
        .remove(&name.replace("~1", "/").replace("~0", "~"))
        .unwrap_or_else(|| panic!("{pointer}: not there"));
}

fn compiled(text: &str) -> Result<Policy, ConfigError> {
    let lookup = |name: &str| match name {
        "MASTER" => Some(MASTER.to_owned()),
        "SHORT" => Some("c2hvcnQ".to_owned()),
        "EMPTY" => Some(String::new()),
        "WORDS" => Some("cGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQ".to_owned()),
        "PADDED" => Some(format!("{MASTER}=")),
        _ => None,
    };
    compile(text.as_bytes(), &Secrets::Lookup(&lookup))
}

/// Every error of a policy as `path: message; help`.
fn problems_of(text: &str) -> Vec<String> {
    let Err(error) = compiled(text) else { return Vec::new() };
    error.problems.iter().map(ToString::to_string).collect()
}

fn warnings_of(policy: &Value) -> Vec<String> {
    let policy = compiled(&policy.to_string()).unwrap_or_else(|error| panic!("{error}"));
    policy.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn unchanged_policies_are_valid() {
    for File { name, policy, .. } in files() {
        assert_eq!(problems_of(&policy.to_string()), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn changed_policies_have_exactly_the_problems_of_their_case() {
    let mut wrong = Vec::new();
    for File { name, policy, cases } in files() {
        assert!(!cases.is_empty(), "{name} has no cases");
        for case in cases {
            let mut policy = policy.clone();
            case.apply(&mut policy);
            let found = problems_of(&policy.to_string());
            if found != case.problems {
                let Case { change, .. } = case;
                wrong.push(format!("{name} {change}\n  found {found:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_problem_names_the_line_of_its_value() {
    let mut checked = 0;
    for File { name, policy, cases } in files() {
        for case in cases.iter().filter(|case| !case.problems.is_empty()) {
            let mut policy = policy.clone();
            case.apply(&mut policy);
            let text = serde_json::to_string_pretty(&policy).expect("JSON");
            let error = compiled(&text).err().unwrap_or_else(|| panic!("{name}: {:?} is valid", case.change));
            for problem in &error.problems {
                let (line, column) = problem.position.unwrap_or_else(|| panic!("{name}: {problem}"));
                let found = text.lines().nth(line - 1).expect("a line");
                assert!((1..=found.chars().count()).contains(&column), "{name}: {problem}");
                let path = problem.path.to_string();
                let member = path.rsplit('.').next().unwrap_or_default();
                let is_there = policy.pointer(&pointer(&path)).is_some() && !member.contains('[');
                assert!(
                    !is_there || member.is_empty() || found.contains(member),
                    "{name}: {problem}: {found}"
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "only {checked} problems");
}

/// Turns a path as in `routes[1].match` into a JSON pointer; names with dots lead nowhere.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
}

/// Sections whose meaning hangs on another: a fault there may hide what follows from it here.
const DEPENDENT: &[(&str, &str)] = &[
    ("limits", "teams"),
    ("limits", "users"),
    ("limits", "api_keys"),
    ("tokens", "credentials"),
    ("tokens", "token_keys"),
    ("tokens", "routes"),
    ("token_keys", "routes"),
];

/// Returns whether a fault in one of the sections cannot hide one in the others.
fn are_independent(one: &Case, other: &Case) -> bool {
    let decides_all = ["host", "store", "platform", "version"];
    let is_tied = |a: &str, b: &str| a == b || DEPENDENT.contains(&(a, b)) || DEPENDENT.contains(&(b, a));
    let (ours, theirs) = (one.sections(), other.sections());
    !ours.iter().chain(&theirs).any(|section| decides_all.contains(section))
        && !ours.iter().any(|one| theirs.iter().any(|other| is_tied(one, other)))
}

#[test]
fn two_faults_give_two_messages() {
    let mut lost = Vec::new();
    let mut tried = 0;
    for File { name, policy, cases } in files() {
        let single: Vec<&Case> = cases.iter().filter(|case| case.problems.len() == 1).collect();
        // The strides make every case meet several others.
        let others = |index: usize| single.iter().skip(index % 17).step_by(17);
        let pairs =
            single.iter().enumerate().flat_map(|(index, one)| others(index).map(move |other| (one, other)));
        for (one, other) in pairs.filter(|(one, other)| are_independent(one, other)) {
            let mut policy = policy.clone();
            one.apply(&mut policy);
            other.apply(&mut policy);
            let found = problems_of(&policy.to_string());
            tried += 1;
            for message in [&one.problems[0], &other.problems[0]] {
                if !found.contains(message) {
                    lost.push(format!("{name}: {message} of {} and {}", one.change, other.change));
                }
            }
        }
    }
    assert!(tried > 1_000, "only {tried} pairs");
    assert!(lost.is_empty(), "{} of {tried} pairs:\n{}", lost.len(), lost.join("\n"));
}

#[test]
fn text_that_is_no_json_is_refused_without_being_quoted() {
    for text in [
        "",
        "hunter2",
        "{",
        "[]",
        "null",
        "\"hunter2\"",
        "{\"version\": hunter2}",
        "{} hunter2",
        "\u{feff}{}",
    ] {
        let problems = problems_of(text);
        assert!(!problems.is_empty(), "{text:?} is taken");
        assert!(!problems.concat().contains("hunter2"), "{text:?}: {problems:?}");
    }
}

#[test]
fn secret_in_the_wrong_place_is_never_repeated() {
    const SECRET: &str = "aHVudGVyMi1odW50ZXIyLWh1bnRlcjItaHVudGVyMg";
    let values = [
        json!(SECRET),
        json!([SECRET]),
        json!({"env": SECRET}),
        json!({"inline": SECRET}),
        json!({"derive": SECRET}),
        json!({"derive": {"inline": SECRET}}),
        json!({"secret": SECRET}),
    ];
    let places = [
        "/token_keys",
        "/token_keys/0",
        "/token_keys/0/secret",
        "/token_keys/0/jwk",
        "/token_keys/0/alg",
        "/token_keys/0/sign",
        "/token_keys/0/kid",
        "/token_keys/0/families",
        "/tokens",
        "/tokens/ct",
        "/tokens/ct/ttl_seconds",
        "/allow_inline_secrets",
        "/version",
        "/host",
        "/platform",
        "/credentials",
        "/credentials/api_key_formats/0/length",
        "/teams",
        "/users",
        "/api_keys",
        "/api_keys/0",
        "/api_keys/0/sha256",
        "/api_keys/0/ceiling",
        "/routes",
        "/routes/1/bounds",
        "/unmatched",
        "/refusals",
        "/hold_seconds",
    ];
    let remembered = [
        "/store",
        "/store/backend",
        "/store/secret",
        "/store/redis",
        "/store/redis/url",
        "/store/redis/cluster",
        "/store/redis/prefix",
        "/store/directory",
        "/audit",
        "/limits",
        "/limits/0/id",
        "/limits/0/per",
        "/limits/2/routes",
        "/limits/4/credentials",
        "/limit_headers",
        "/limit_headers/x-ratelimit-limit",
        "/revocations",
        "/revocations/0/key",
        "/revocations/1",
        "/revocations/1/token",
        "/revocations/3/tokens_of_team",
        "/tokens/ct/uses",
        "/routes/6/uses",
        "/routes/5/revoke",
        "/teams/0/limits",
        "/api_keys/0/limits",
    ];
    let of_base = places.map(|place| (base(), place)).into_iter();
    let all = of_base.chain(remembered.map(|place| (file("counting").policy, place)));
    let mut echoed = Vec::new();
    for (policy, place) in all {
        for value in &values {
            // The names of things and of variables are meant to be repeated.
            let is_name = ["/token_keys/0/kid", "/token_keys/0/families"].contains(&place)
                || (place == "/token_keys/0/secret" && value["env"] == SECRET);
            let mut policy = policy.clone();
            set(&mut policy, place, value.clone());
            let problems = problems_of(&policy.to_string());
            if !is_name && problems.concat().contains(SECRET) {
                echoed.push(format!("{place} = {value}: {problems:?}"));
            }
        }
    }
    assert!(echoed.is_empty(), "{}", echoed.join("\n"));
}

#[test]
fn inline_secret_needs_permission_and_warns() {
    let mut policy = base();
    policy["token_keys"][0]["secret"] = json!({"inline": MASTER});
    assert!(problems_of(&policy.to_string()).concat().contains("allow_inline_secrets"));
    policy["allow_inline_secrets"] = json!(true);
    let warnings = warnings_of(&policy);
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("token_keys[0].secret.inline: a secret in the policy"))
    );
    assert!(!warnings.concat().contains(MASTER));
}

#[test]
fn unset_secret_is_ignored_when_secrets_are_unchecked() {
    let mut policy = base();
    policy["token_keys"][0]["secret"] = json!({"env": "NOT_SET"});
    assert!(compile(policy.to_string().as_bytes(), &Secrets::Unchecked).is_ok());
    assert!(!problems_of(&policy.to_string()).is_empty());
}

#[test]
fn shipped_policies_compile_and_hold_no_secret() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shipped = 0;
    for entry in fs::read_dir(root.join("policies")).expect("policies") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a readable policy");
        if let Err(error) = compile(text.as_bytes(), &Secrets::Unchecked) {
            panic!("{}:\n  {}", path.display(), error.to_string().replace("; ", "\n  "));
        }
        assert!(!text.contains("\"inline\""), "{}: a secret", path.display());
        shipped += 1;
    }
    assert!(shipped > 0, "there are none");
}

/// What only text can say: a `Value` has already dropped the duplicate.
#[test]
fn duplicate_member_is_refused() {
    let table = [
        (r#""version":1"#, r#""version":1,"version":1"#),
        (r#""host":"envoy""#, r#""host":"envoy","host":"envoy""#),
        (r#""id":"dial""#, r#""id":"dial","id":"dial""#),
        (r#""id":"dial""#, r#""id":"dial","\u0069d":"dial""#),
        (r#""kid":"1""#, r#""kid":"1","kid":"2""#),
        (r#""webrtc":true"#, r#""webrtc":true,"webrtc":false"#),
        (r#""tokens":{"#, r#""tokens":{"ct":{},"#),
        (r#""code":"$code""#, r#""code":"$code","code":"x""#),
    ];
    for (once, twice) in table {
        let text = base().to_string();
        assert!(text.contains(once), "{once} is not in {text}");
        let problems = problems_of(&text.replacen(once, twice, 1));
        assert!(problems.concat().contains("duplicate member"), "{twice}: {problems:#?}");
    }
}

#[test]
fn unlisted_feature_is_off_with_a_warning() {
    let mut policy = base();
    set(&mut policy, "/routes/1/features", json!("nope"));
    let compiled = compiled(&policy.to_string()).expect("a valid policy");
    assert!(!compiled.platform.has_feature("nope"));
    assert!(
        compiled.warnings.iter().any(|warning| warning.message.contains("`nope`")),
        "{:?}",
        compiled.warnings
    );
}

/// Nothing that may be left out need be there: the store is then the gateway's own memory.
#[test]
fn empty_store_and_no_store_are_valid() {
    for store in [None, Some(json!({})), Some(json!({"backend": "memory"}))] {
        let mut policy = file("counting-in-memory").policy;
        match &store {
            None => _ = policy.as_object_mut().expect("an object").remove("store"),
            Some(store) => policy["store"] = store.clone(),
        }
        assert_eq!(problems_of(&policy.to_string()), Vec::<String>::new(), "{store:?}");
    }
}

fn is_unsealed(warning: &str) -> bool {
    warning.contains("store.secret: not set")
}

/// Whatever stands in the gateway's own memory needs a secret; a policy that keeps nothing there needs none.
#[test]
fn unsealed_store_warns() {
    let no_limits = json!({"limits": null, "limit_headers": null});
    let bare = |more: &Value| {
        let mut policy = file("rich").policy;
        merge(&mut policy, no_limits.clone());
        merge(&mut policy, more.clone());
        policy
    };
    let mut asked = bare(&json!({}));
    set(&mut asked, "/routes/0/mint/request/uses", json!({"field": "uses"}));
    let mut asked_total = bare(&json!({}));
    set(&mut asked_total, "/routes/0/mint/request/total_seconds", json!({"field": "total"}));
    let mut demanded = bare(&json!({}));
    set(&mut demanded, "/routes/1/uses", json!({"max": 1}));
    let mut revoking = bare(&json!({}));
    let revoke = json!({"id": "revoke", "match": "POST /revocations", "accept": ["api_key"], "scopes": ["admin"], "revoke": {}});
    revoking["routes"].as_array_mut().expect("a list").push(revoke);
    let limit = json!([{"id": "minute", "per": "key", "window": {"max": 1, "seconds": 60}}]);
    let table = [
        ("a limit", bare(&json!({"limits": limit.clone()}))),
        ("uses", bare(&json!({"tokens": {"ct": {"uses": {"default": 1}}}}))),
        ("seconds", bare(&json!({"tokens": {"ct": {"total_seconds": {"default": 60}}}}))),
        ("uses that are asked for", asked),
        ("seconds that are asked for", asked_total),
        ("uses that a route demands", demanded),
        ("revocations", revoking),
    ];
    let mut silent = Vec::new();
    for (what, policy) in table {
        if !warnings_of(&policy).iter().any(|warning| is_unsealed(warning)) {
            silent.push(what);
        }
    }
    assert!(silent.is_empty(), "no warning: {silent:?}");
    assert!(!warnings_of(&bare(&json!({}))).iter().any(|warning| is_unsealed(warning)), "nothing is kept");
    let sealed = bare(&json!({"limits": limit, "store": {"secret": {"derive": {"env": "MASTER"}}}}));
    assert!(!warnings_of(&sealed).iter().any(|warning| is_unsealed(warning)), "it is sealed");
}

/// `callbound check` without `--secrets` does not look at secrets; that there is one it sees.
#[test]
fn unchecked_store_secret_is_not_missing() {
    let compiled = compile(file("counting-in-memory").policy.to_string().as_bytes(), &Secrets::Unchecked)
        .expect("it compiles");
    assert!(
        !compiled.warnings.iter().any(|warning| is_unsealed(&warning.to_string())),
        "{:?}",
        compiled.warnings
    );
}

/// Keys that are looked up do not stand in the policy: it may have none, and revoke those it does not know.
#[test]
fn policy_with_a_directory_needs_no_keys() {
    let mut policy = base();
    policy["store"] = json!({"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}, "directory": {}});
    remove(&mut policy, "/api_keys");
    let warnings = warnings_of(&policy);
    assert!(!warnings.iter().any(|warning| warning.contains("has no `api_keys`")), "{warnings:?}");
    policy["revocations"] =
        json!([{"key": "elsewhere"}, {"tokens_of_key": "elsewhere", "before": 1_790_000_000}]);
    assert_eq!(problems_of(&policy.to_string()), Vec::<String>::new());
}

#[test]
fn inline_store_secret_needs_permission_and_warns() {
    for secret in [json!({"inline": MASTER}), json!({"derive": {"inline": MASTER}})] {
        let mut policy = file("counting-in-memory").policy;
        policy["allow_inline_secrets"] = json!(true);
        policy["store"]["secret"] = secret;
        let warnings = warnings_of(&policy);
        assert!(warnings.iter().any(|warning| warning.contains("a secret in the policy")), "{warnings:?}");
        assert!(!warnings.concat().contains(MASTER));
    }
}

#[test]
fn duplicate_member_of_a_limit_or_store_is_refused() {
    let table = [
        (r#""day":500"#, r#""day":500,"day":50000"#),
        (r#""x-ratelimit-limit":"limit""#, r#""x-ratelimit-limit":"limit","x-ratelimit-limit":"remaining""#),
        (r#""backend":"redis""#, r#""backend":"redis","backend":"memory""#),
        (r#""reach":"platform""#, r#""reach":"platform","reach":"own""#),
    ];
    for (once, twice) in table {
        let text = file("counting").policy.to_string();
        assert!(text.contains(once), "{once} is not in {text}");
        let problems = problems_of(&text.replacen(once, twice, 1));
        assert!(problems.concat().contains("duplicate member"), "{twice}: {problems:#?}");
    }
}

/// Members by pointer, and their names before 0.1.0.
const OLD_NAMES: &[(&str, &str, &str)] = &[
    ("base", "/credentials/locations", "from"),
    ("base", "/credentials/api_key_formats", "api_keys"),
    ("base", "/token_keys", "keyring"),
    ("base", "/tokens/ct/ttl_seconds", "ttl"),
    ("base", "/routes/0/mint/request/ttl_seconds", "ttl"),
    ("base", "/routes/0/mint/request/from/field", "member"),
    ("rich", "/upstream_credentials", "upstream_keys"),
    ("rich", "/issuers/partner/acts_as", "key"),
    ("rich", "/api_keys/0/ceiling/session_seconds", "session"),
    ("rich", "/routes/0/mint/request/session_seconds", "session"),
    ("rich", "/routes/0/mint/request/endpoint/requires_feature", "capable"),
    ("rich", "/routes/1/credential_locations", "credential_from"),
    ("rich", "/routes/1/forward_fields", "identify"),
    ("rich", "/routes/1/upstream_credential", "present"),
    ("rich", "/routes/3/introspect/field", "member"),
    ("rich", "/routes/4/list", "directory"),
    ("counting", "/store/backend", "home"),
    ("counting", "/store/revocations/refresh_seconds", "refresh"),
    ("counting", "/store/directory/fresh_seconds", "fresh"),
];

#[test]
fn old_name_of_a_member_is_refused_with_the_new_one() {
    for (name, pointer, old) in OLD_NAMES {
        let mut policy = file(name).policy;
        let (parent, new) = pointer.rsplit_once('/').expect("a pointer");
        let value = policy.pointer(pointer).unwrap_or_else(|| panic!("{name} has no {pointer}")).clone();
        set(&mut policy, &format!("{parent}/{old}"), value);
        remove(&mut policy, pointer);
        let found = problems_of(&policy.to_string());
        let expected = format!("unknown member `{old}`; did you mean `{new}`?");
        assert!(found.len() == 1 && found[0].ends_with(&expected), "{pointer}: {found:#?}");
    }
}
