//! One policy on three hosts: a feature that the host lacks is refused at load, with path and reason; the guarantee
//! sheet describes the others.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;

use callbound::policy::{Enforcement, Policy, Secrets, compile, guarantees, merge};
use serde_json::{Value, json};

fn platform(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("a policy")).expect("JSON")
}

fn merged(mut policy: Value, over: Value) -> Value {
    merge(&mut policy, over);
    policy
}

fn compiled(policy: &Value) -> Result<Policy, Vec<String>> {
    let compiled = compile(policy.to_string().as_bytes(), &Secrets::Unchecked);
    compiled.map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

fn problems(policy: &Value) -> Vec<String> {
    compiled(policy).err().unwrap_or_default()
}

fn on(host: &str) -> Value {
    let entropy =
        if matches!(host, "kong" | "nginx") { json!({"env": "CALLBOUND_ENTROPY"}) } else { Value::Null };
    json!({"host": host, "entropy": entropy})
}

/// Asserts the problems of a shipped policy on a host; an empty list: it loads.
fn assert_problems(name: &str, over: Value, expected: &[&str]) {
    let found = problems(&merged(platform(name), over.clone()));
    let is_same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.contains(expected));
    assert!(is_same, "{name} with {over}: {found:#?}");
}

const ENDS: &str = "this host cannot end a connection";
const SHARES: &str = "this host has no memory that its workers share";

#[test]
fn shipped_policies_load_only_where_the_host_suffices() {
    for name in ["revdesk.json", "telapi.json", "decart.json"] {
        assert_problems(name, json!({}), &[]);
        assert_problems(name, json!({"hold_headers": "buffer_filter"}), &[]);
    }
    assert_problems("revdesk.json", on("kong"), &[]);
    assert_problems("telapi.json", on("kong"), &[ENDS]);
    assert_problems("decart.json", on("kong"), &[ENDS]);
    let upstream_ends = |host| merged(on(host), json!({"sessions_ended_by": "upstream"}));
    assert_problems("telapi.json", upstream_ends("kong"), &[]);
    assert_problems("decart.json", upstream_ends("kong"), &[]);
    assert_problems("decart.json", upstream_ends("apisix"), &[]);
    // RevDesk and TelAPI have limits, and TelAPI has single-use tokens: they need shared memory.
    for name in ["revdesk.json", "telapi.json"] {
        let found = problems(&merged(platform(name), upstream_ends("apisix")));
        assert!(!found.is_empty() && found.iter().all(|problem| problem.contains(SHARES)), "{found:#?}");
    }
    assert_problems("revdesk.json", json!({"host": "apisix", "limits": null, "limit_headers": null}), &[]);
}

#[test]
fn policy_without_entropy_on_weak_host_is_refused() {
    assert_problems(
        "revdesk.json",
        json!({"host": "kong"}),
        &["no randomness fit for tokens; give `entropy`"],
    );
    for host in ["envoy", "apisix"] {
        let policy = merged(
            platform("revdesk.json"),
            json!({"host": host, "entropy": {"env": "A"}, "limits": null, "limit_headers": null}),
        );
        assert_eq!(
            problems(&policy),
            ["entropy: this host has randomness of its own, which is better; leave it out"]
        );
    }
    let with = |text: &'static str| {
        let policy = merged(platform("revdesk.json"), on("kong")).to_string();
        let lookup = move |name: &str| {
            Some(
                if name == "CALLBOUND_ENTROPY" {
                    text
                } else {
                    "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"
                }
                .to_owned(),
            )
        };
        compile(policy.as_bytes(), &Secrets::Lookup(&lookup))
            .err()
            .map(|error| error.problems.iter().map(ToString::to_string).collect::<String>())
            .unwrap_or_default()
    };
    assert!(with("c2hvcnQ").contains("entropy: the secret is shorter than 32 bytes"), "{}", with("c2hvcnQ"));
    // 32 times `A`, and 0 to 31.
    for guessable in
        ["QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]
    {
        assert!(with(guessable).contains("entropy: the secret is guessable"), "{}", with(guessable));
    }
    assert_eq!(with("bWFzdGVyIG9mIHRoZSBlbnRyb3B5LCAzMiBieXRlcyBvciBtb3Jl"), "");
}

#[test]
fn missing_host_feature_is_named_with_its_path() {
    let revdesk = |over: Value| merged(platform("revdesk.json"), over);
    let bare = json!({"limits": null, "limit_headers": null});
    let cases = [
        (
            revdesk(
                json!({"host": "kong", "limits": [{"id": "open", "per": "team", "sessions": {"max": 3}}]}),
            ),
            "entropy: missing: sessions",
        ),
        (
            revdesk(json!({"hold_headers": "buffer_filter", "host": "kong", "entropy": {"env": "A"}})),
            "hold_headers: only Envoy has a buffer filter",
        ),
        (
            revdesk(merged(
                bare.clone(),
                json!({"host": "apisix", "store": {"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}}}),
            )),
            "store.backend: this host calls the module for requests only",
        ),
        (
            revdesk(merged(
                on("nginx"),
                json!({"store": {"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}}}),
            )),
            "store.backend: this host lets a request pass while Redis is asked",
        ),
        (
            revdesk(merged(
                on("kong"),
                json!({"routes": [{"id": "off", "match": "POST /off", "accept": ["api_key"], "revoke": {}}]}),
            )),
            "routes[0].revoke: this host forgets its memory when it reloads",
        ),
        (
            revdesk(merged(
                on("kong"),
                json!({"limits": [{"id": "open", "per": "team", "sessions": {"max": 121}}]}),
            )),
            "limits[0]: this host's memory counts 120",
        ),
        (
            revdesk(merged(
                bare,
                json!({"host": "apisix", "limits": [{"id": "bad", "per": "address", "count": "failures", "window": {"max": 9, "seconds": 60}}]}),
            )),
            "limits[0]: this host has no memory that its workers share: failures cannot be counted",
        ),
    ];
    for (policy, expected) in cases {
        let found = problems(&policy);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn charges_beyond_one_call_to_redis_are_refused_on_kong() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateways/kong/policy.json");
    let base: Value = serde_json::from_str(&fs::read_to_string(path).expect("a policy")).expect("JSON");
    let with = |host: &str, limits: usize| {
        let limit = |number: usize| json!({"id": format!("l{number}"), "per": "key", "routes": ["dial"], "window": {"max": 9, "seconds": 60}});
        let limits: Value = (0..limits).map(limit).collect();
        let store = json!({"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}});
        problems(&merged(base.clone(), merged(on(host), json!({"limits": limits, "store": store}))))
    };
    let most = (1..200).take_while(|limits| with("kong", *limits).is_empty()).last();
    assert_eq!(most, Some(67), "limits that fit");
    assert_eq!(
        with("kong", 68),
        [
            "routes[2]: a request here may need a call to Redis of 3077 bytes, and this host sends 3072 at most; \
          68 limits count here; name fewer routes in some"
        ]
    );
    assert_eq!(with("envoy", 199), Vec::<String>::new());
}

/// Returns the enforcement that the guarantee sheet states for a subject.
fn force(policy: &Value, subject: &str) -> Option<Enforcement> {
    let policy = compiled(policy).unwrap_or_else(|problems| panic!("{problems:#?}"));
    guarantees(&policy)
        .into_iter()
        .find(|guarantee| guarantee.subject == subject)
        .map(|found| found.enforcement)
}

#[test]
fn guarantee_sheet_states_each_enforcement() {
    let telapi = platform("telapi.json");
    assert_eq!(force(&telapi, "uses of tokens"), Some(Enforcement::Node));
    assert_eq!(force(&telapi, "sessions"), Some(Enforcement::Exact));
    let fleet = merged(
        telapi.clone(),
        json!({"store": {"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}}}),
    );
    assert_eq!(force(&fleet, "uses of tokens"), Some(Enforcement::Fleet));
    let kong = merged(telapi, merged(on("kong"), json!({"sessions_ended_by": "upstream"})));
    assert_eq!(force(&kong, "sessions"), Some(Enforcement::Upstream));
    assert_eq!(force(&kong, "randomness of tokens"), Some(Enforcement::Host));
    let sheet = guarantees(&compiled(&kong).unwrap_or_else(|problems| panic!("{problems:#?}")));
    let uses = sheet.iter().find(|guarantee| guarantee.subject == "uses of tokens").expect("it counts uses");
    assert!(uses.text.contains("eviction=none"), "{uses}");
}

#[test]
fn credential_in_query_is_warned_of_where_logs_show_it() {
    let warned = |host: &str| {
        let upstream_ends = json!({"sessions_ended_by": "upstream"});
        let policy = merged(platform("decart.json"), merged(on(host), upstream_ends));
        let policy = compiled(&policy).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let is_in_sheet = guarantees(&policy).iter().any(|line| line.subject == "credentials in the query");
        let mut warnings = policy.warnings.iter().map(ToString::to_string);
        let is_warned = warnings.any(|text| text.contains("credential_locations: a credential in the query"));
        (is_in_sheet, is_warned)
    };
    assert_eq!(warned("envoy"), (false, false));
    for host in ["kong", "nginx", "apisix"] {
        assert_eq!(warned(host), (true, true), "{host}");
    }
}

#[test]
fn guarantee_sheet_holds_no_secret() {
    let secret = "bWFzdGVyIG9mIHRoZSBlbnRyb3B5LCAzMiBieXRlcyBvciBtb3Jl";
    let policy = merged(
        platform("revdesk.json"),
        json!({"host": "kong", "entropy": {"inline": secret}, "allow_inline_secrets": true}),
    );
    let policy = compiled(&policy).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(guarantees(&policy).iter().all(|line| !line.to_string().contains(secret)));
    assert!(
        policy.warnings.iter().any(|warning| warning.to_string().contains("entropy.")),
        "{:?}",
        policy.warnings
    );
}

/// Renders the sheet of each shipped policy on each host, or the reasons why it does not load.
fn sheets() -> String {
    let upstream_ends = json!({"sessions_ended_by": "upstream"});
    let hosts = [
        ("Envoy", "", json!({})),
        (
            "Envoy with the buffer filter",
            " with `\"hold_headers\": \"buffer_filter\"`",
            json!({"hold_headers": "buffer_filter"}),
        ),
        (
            "Kong",
            " with `\"host\": \"kong\"`, `entropy` and `\"sessions_ended_by\": \"upstream\"`",
            merged(on("kong"), upstream_ends.clone()),
        ),
        (
            "nginx",
            " with `\"host\": \"nginx\"`, `entropy` and `\"sessions_ended_by\": \"upstream\"`",
            merged(on("nginx"), upstream_ends.clone()),
        ),
        (
            "APISIX",
            " with `\"host\": \"apisix\"` and `\"sessions_ended_by\": \"upstream\"`",
            merged(on("apisix"), upstream_ends),
        ),
    ];
    let mut text = String::from(
        "# Guarantee sheets\n\nWhat the three platforms' policies enforce on each host, as `callbound guarantees` prints it. \
         [hosts.md](hosts.md) says why.\nWritten by `CALLBOUND_WRITE=1 cargo test --test host_policies`; the same test fails when it is out of date.\n",
    );
    for name in ["revdesk.json", "telapi.json", "decart.json"] {
        for (host, how, over) in &hosts {
            text += &format!("\n## {host}: policies/{name}\n\n`policies/{name}`{how}:\n\n```text\n");
            match compiled(&merged(platform(name), over.clone())) {
                Ok(policy) => guarantees(&policy).iter().for_each(|line| text += &format!("{line}\n")),
                Err(problems) => {
                    text += "the policy is refused:\n";
                    problems.iter().for_each(|problem| text += &format!("  {problem}\n"));
                }
            }
            text += "```\n";
        }
    }
    text
}

#[test]
#[allow(clippy::disallowed_methods, reason = "an environment variable rewrites the sheets")]
fn guarantee_sheets_in_docs_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md");
    if std::env::var_os("CALLBOUND_WRITE").is_some() {
        fs::write(&path, sheets()).expect("a file to write");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == sheets(),
        "{} is out of date: CALLBOUND_WRITE=1 cargo test --test host_policies",
        path.display()
    );
}
