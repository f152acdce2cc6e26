//! Tokens of another issuer, whose keys are fetched: new, missing and stale ones.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

use super::{ALLOWED, World, call, policy, same, status};
use crate::support::client::exchange;
use crate::support::gateway::{Pieces, unchanged};
use crate::support::poll;

const PATIENCE: Duration = Duration::from_secs(10);

/// A key published while the gateway runs is accepted soon, and unknown tokens cannot make the gateway fetch more
/// often.
pub fn new_key_is_fetched(pieces: &Pieces) -> Result<(), String> {
    let issuer = Issuer::start(&["first"])?;
    let world = World::start(pieces, &policy_with(&issuer, 3_600))?;
    poll("the first keys", PATIENCE, || is_allowed(&world, "first"))?;
    let before = issuer.fetches();
    for _ in 0..50 {
        status("an unknown key", &exchange(world.address(), &call(&token("second"), ALLOWED))?, 401)?;
    }
    issuer.publish(200, &["first", "second"]);
    poll("the new key to be accepted", PATIENCE, || is_allowed(&world, "second"))?;
    let fetches = issuer.fetches() - before;
    // Two workers, and at most one fetch per second of each.
    if fetches > 2 * 12 {
        return Err(format!("fifty unknown tokens caused {fetches} fetches"));
    }
    world.deliver(&narrowed_to(policy_with(&issuer, 3_600)), &unchanged)?;
    status(
        "the old key, under a new policy at once",
        &exchange(world.address(), &call(&token("first"), ALLOWED))?,
        200,
    )
}

/// Returns a narrowed policy with the same issuer.
fn narrowed_to(mut policy: Value) -> Value {
    policy["api_keys"][0]["ceiling"] = json!({"to": [ALLOWED]});
    policy
}

/// Keys that cannot be fetched stay valid as long as the policy allows; then every token is refused until they can.
pub fn stale_keys_are_refused(pieces: &Pieces) -> Result<(), String> {
    let issuer = Issuer::start(&["first"])?;
    let world = World::start(pieces, &policy_with(&issuer, 3))?;
    poll("the first keys", PATIENCE, || is_allowed(&world, "first"))?;
    issuer.publish(500, &[]);
    status("while they are fresh", &exchange(world.address(), &call(&token("first"), ALLOWED))?, 200)?;
    poll("the keys to be too old", PATIENCE, || {
        let answer = exchange(world.address(), &call(&token("first"), ALLOWED)).ok()?;
        (answer.status == 503).then_some(())
    })?;
    let seen = world.upstream.count();
    for _ in 0..4 {
        let _ = exchange(world.address(), &call(&token("first"), ALLOWED))?;
    }
    same("requests upstream meanwhile", world.upstream.count(), seen)?;
    issuer.publish(200, &["first"]);
    poll("the keys to be back", PATIENCE, || is_allowed(&world, "first"))
}

fn is_allowed(world: &World, kid: &str) -> Option<()> {
    // Twice in a row on new connections: both workers fetch for themselves.
    let is_good = |_: i32| {
        exchange(world.address(), &call(&token(kid), ALLOWED)).is_ok_and(|answer| answer.status == 200)
    };
    (0..6).all(is_good).then_some(())
}

fn policy_with(issuer: &Issuer, stale: u64) -> Value {
    let mut policy = policy();
    policy["issuers"] = json!({"partner": {
        "issuer": "https://idp.example", "audience": "calls", "ttl_seconds": {"max": 3600},
        "acts_as": "backend", "algorithms": ["ES256"],
        "jwks": {
            "url": format!("http://{}/keys", issuer.address), "cluster": "idp",
            "refresh_seconds": 1, "cooldown_seconds": 1, "stale_seconds": stale
        },
        "claims": {"scopes": "/scope"}
    }});
    let routes = policy["routes"].as_array_mut();
    for route in routes.into_iter().flatten().filter(|route| route["id"] == "dial") {
        route["accept"] = json!(["partner"]);
    }
    policy
}

/// The private key behind a `kid`, the same at every run.
#[expect(clippy::expect_used, reason = "a test may fail loudly")]
fn key(kid: &str) -> SigningKey {
    let mut scalar = [7_u8; 32];
    scalar.iter_mut().zip(kid.bytes()).for_each(|(slot, byte)| *slot = byte);
    SigningKey::from_slice(&scalar).expect("below the order of the curve")
}

fn token(kid: &str) -> String {
    let encode = |value: Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let header = encode(json!({"alg": "ES256", "kid": kid, "typ": "JWT"}));
    let claims = encode(json!({
        "iss": "https://idp.example", "aud": "calls", "sub": "user-1", "iat": now, "exp": now + 300, "scope": "calls:write"
    }));
    let signature: p256::ecdsa::Signature = key(kid).sign(format!("{header}.{claims}").as_bytes());
    format!("{header}.{claims}.{}", Base64UrlUnpadded::encode_string(&signature.to_bytes()))
}

fn key_set(kids: &[&str]) -> String {
    let keys = kids.iter().map(|kid| {
        let point = key(kid).verifying_key().to_encoded_point(false);
        let part = |bytes: Option<&p256::FieldBytes>| bytes.map(|bytes| Base64UrlUnpadded::encode_string(bytes));
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": part(point.x()), "y": part(point.y())})
    });
    json!({"keys": keys.collect::<Vec<_>>()}).to_string()
}

/// Server that publishes keys; it ends with the test's process.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(kids: &[&str]) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let answer = Arc::new(Mutex::new((200, key_set(kids))));
        let fetches = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (answer.clone(), fetches.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 4096]);
                let (status, body) = shared.lock().map(|answer| answer.clone()).unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Ok(Self { address, answer, fetches })
    }

    fn publish(&self, status: u16, kids: &[&str]) {
        if let Ok(mut answer) = self.answer.lock() {
            *answer = (status, key_set(kids));
        }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}
