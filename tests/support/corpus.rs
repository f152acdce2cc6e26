//! The corpus: loading `tests/cases/*.json`, merging the overlay, replacing `${…}`. The format is in
//! `tests/cases/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::expect::Expect;
use super::recipe::{Mint, Recipe};

/// Gateway, real or imitated, on which a case is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The decision core alone.
    Core,
    /// The compiled module in the test's own proxy-wasm host, which imitates Envoy.
    Wasm,
    /// The module in the same host, with Envoy's buffer filter holding the headers.
    Buffer,
    /// The module in the same host, imitating Kong.
    Kong,
    /// The module in the same host, imitating APISIX.
    Apisix,
    /// A real Envoy, sockets and all.
    Envoy,
    /// A real Envoy with its buffer filter after the module.
    Mesh,
}

/// Environment variable for Kong's entropy, and 32 bytes for it.
const ENTROPY: (&str, &str) = ("CALLBOUND_ENTROPY", "Y29ycHVzLWVudHJvcHktb2YtdGhpcnR5LXR3by1ieXQ");

impl Level {
    pub const ALL: [Self; 7] =
        [Self::Core, Self::Wasm, Self::Buffer, Self::Kong, Self::Apisix, Self::Envoy, Self::Mesh];

    /// Returns the level by which `levels` names this one too.
    pub fn base(self) -> Self {
        match self {
            Self::Core => Self::Core,
            Self::Wasm | Self::Buffer | Self::Kong | Self::Apisix => Self::Wasm,
            Self::Envoy | Self::Mesh => Self::Envoy,
        }
    }

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Returns the overlay that adapts a policy to this level's host.
    fn overlay(self) -> Option<Value> {
        match self {
            Self::Core | Self::Wasm | Self::Envoy => None,
            Self::Buffer | Self::Mesh => Some(json!({"hold_headers": "buffer_filter"})),
            Self::Kong => Some(json!({
                "host": "kong",
                "entropy": {"env": ENTROPY.0},
                "sessions_ended_by": "upstream",
            })),
            Self::Apisix => Some(json!({"host": "apisix", "sessions_ended_by": "upstream"})),
        }
    }
}

/// One policy and the requests made under it, ready to play.
#[derive(Clone)]
pub struct File {
    pub name: String,
    /// Text of the policy: the file byte for byte when it has no overlay.
    pub policy: String,
    pub env: BTreeMap<String, String>,
    /// Client's address; with real sockets it is the loopback.
    pub peer: Option<IpAddr>,
    pub cases: Vec<Case>,
    pub vars: Vars,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(rename = "$comment", default)]
    _comment: Value,
    policy: Value,
    #[serde(default)]
    overlay: Value,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    peer: Option<IpAddr>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    #[serde(default)]
    tokens: BTreeMap<String, Recipe>,
    cases: Vec<Case>,
}

/// One request, played once or several times, and its expectation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(rename = "why", default)]
    _why: Option<String>,
    request: RequestSpec,
    pub expect: Expect,
    #[serde(default)]
    levels: Option<Vec<Level>>,
    #[serde(default)]
    repeat: Option<u32>,
    #[serde(default)]
    mint: Option<Keep>,
    /// Seconds to wait before the case.
    #[serde(default)]
    pub after: u64,
}

/// Value of an answer that later cases use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    #[serde(rename = "as")]
    pub name: String,
    /// A JSON pointer.
    pub at: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestSpec {
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: Vec<(String, Text)>,
    #[serde(default, deserialize_with = "present")]
    content_type: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    json: Option<Value>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    base64: Option<String>,
    #[serde(default)]
    framing: Framing,
    #[serde(default)]
    trailers: Vec<(String, Text)>,
    #[serde(default)]
    repeat: Option<u32>,
    #[serde(default)]
    mint: Option<Keep>,
}

/// Text, or arbitrary bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Bytes { base64: String },
}

/// Framing of a request on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// HTTP/1.1 with `content-length`.
    #[default]
    Length,
    /// HTTP/1.1 in chunks.
    Chunked,
    /// HTTP/1.1 in chunks, with pauses between them.
    Slow,
    /// HTTP/1.1 in chunks, with trailers.
    Trailers,
    /// HTTP/2 with `content-length`.
    H2,
    /// HTTP/2 with trailers and no `content-length`.
    H2Trailers,
    /// Handshake of a WebSocket: HTTP/1.1 without a body and without an end.
    Websocket,
}

/// Headers of a handshake.
const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

impl Framing {
    pub fn has_trailers(self) -> bool {
        matches!(self, Self::Trailers | Self::H2Trailers)
    }

    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2 | Self::H2Trailers)
    }

    /// Returns true if the length is announced.
    pub fn has_length(self) -> bool {
        matches!(self, Self::Length | Self::H2 | Self::Websocket)
    }

    /// Pause between two pieces.
    pub fn pause(self) -> Duration {
        Duration::from_millis(if self == Self::Slow { 40 } else { 0 })
    }
}

/// Header names and values as they are sent.
pub type Headers = Vec<(String, Vec<u8>)>;

/// Request with every variable replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Headers,
    pub body: Option<Vec<u8>>,
    pub framing: Framing,
    pub trailers: Headers,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: None, framing: Framing::Length, trailers: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub fn bearer(self, credential: &str) -> Self {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    /// Builds the handshake of a WebSocket.
    pub fn websocket(path: &str) -> Self {
        let mut request = Self { framing: Framing::Websocket, ..Self::new("GET", path) };
        add_handshake(&mut request.headers);
        request
    }

    pub fn json(mut self, value: &Value) -> Self {
        self.body = Some(value.to_string().into_bytes());
        self.header("content-type", "application/json")
    }

    /// Returns true if the headers end the request. Those of a handshake do not: the socket's frames follow.
    pub fn ends_with_headers(&self) -> bool {
        self.body.is_none() && self.framing != Framing::Websocket
    }

    /// Splits the body into the pieces that its framing sends.
    pub fn pieces(&self) -> Vec<&[u8]> {
        let Some(body) = &self.body else { return Vec::new() };
        let size = match self.framing {
            Framing::Length | Framing::H2 | Framing::Websocket => 64 * 1024,
            _ => body.len().div_ceil(4).max(1),
        };
        body.chunks(size).collect()
    }
}

impl Case {
    /// Returns true if the case is played at this level.
    pub fn runs_at(&self, level: Level) -> bool {
        let levels = self.levels.as_ref().or(self.expect.levels.as_ref());
        levels.is_none_or(|levels| levels.contains(&level) || levels.contains(&level.base()))
    }

    pub fn times(&self) -> u32 {
        self.repeat.or(self.request.repeat).unwrap_or(1)
    }

    pub fn keep(&self) -> Option<&Keep> {
        self.mint.as_ref().or(self.request.mint.as_ref())
    }

    /// Builds the request, with tokens, keys and kept values as of `now`.
    pub fn request(&self, vars: &Vars, now: u64) -> Result<Request, String> {
        let spec = &self.request;
        let text = |text: &Text| match text {
            Text::Plain(text) => vars.expand(text, now).map(String::into_bytes),
            Text::Bytes { base64 } => from_base64(base64),
        };
        let pairs = |pairs: &[(String, Text)]| -> Result<Headers, String> {
            pairs.iter().map(|(name, value)| Ok((name.clone(), text(value)?))).collect()
        };
        let body = match (&spec.json, &spec.text, &spec.base64) {
            (Some(json), None, None) => Some(vars.expand(&json.to_string(), now)?.into_bytes()),
            (None, Some(text), None) => Some(vars.expand(text, now)?.into_bytes()),
            (None, None, Some(base64)) => Some(from_base64(base64)?),
            (None, None, None) => None,
            _ => return Err("one of `json`, `text` and `base64`".to_owned()),
        };
        let mut headers = pairs(&spec.headers)?;
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let default = body.is_some() && !has_type;
        match &spec.content_type {
            Some(Some(value)) => headers.push(("content-type".to_owned(), value.clone().into_bytes())),
            None if default => headers.push(("content-type".to_owned(), b"application/json".to_vec())),
            _ => {}
        }
        let mut trailers = pairs(&spec.trailers)?;
        if spec.framing.has_trailers() && trailers.is_empty() {
            trailers.push(("x-checksum".to_owned(), b"none".to_vec()));
        }
        let is_handshake = spec.framing == Framing::Websocket;
        if is_handshake {
            add_handshake(&mut headers);
        }
        let default = if is_handshake { "GET" } else { "POST" };
        let method = spec.method.clone().unwrap_or_else(|| default.to_owned());
        let path = vars.expand(&spec.path, now)?;
        Ok(Request { method, path, headers, body, framing: spec.framing, trailers })
    }
}

/// Values for `${…}`: `${name}` a token or a kept value, `${key:name}` an API key, `${now}` Unix seconds, `${fill:N}` N
/// letters.
#[derive(Clone)]
pub struct Vars {
    keys: BTreeMap<String, String>,
    kept: BTreeMap<String, String>,
    mint: Mint,
}

impl Vars {
    pub fn keep(&mut self, name: &str, value: String) {
        self.kept.insert(name.to_owned(), value);
    }

    fn expand(&self, text: &str, now: u64) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, tail) = after.split_once('}').ok_or("`${` without `}`")?;
            out.push_str(before);
            out.push_str(&self.value(name, now)?);
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str, now: u64) -> Result<String, String> {
        if let Some(key) = name.strip_prefix("key:") {
            return self.keys.get(key).cloned().ok_or_else(|| format!("no key `{key}`"));
        }
        if let Some(size) = name.strip_prefix("fill:").and_then(|size| size.parse().ok()) {
            return Ok("a".repeat(size));
        }
        if name == "now" {
            return Ok(now.to_string());
        }
        if let Some(kept) = self.kept.get(name) {
            return Ok(kept.clone());
        }
        self.mint.token(name, now).unwrap_or_else(|| Err(format!("nothing is called `{name}`")))
    }
}

impl File {
    /// Returns the file adapted to a level's host.
    pub fn at(&self, level: Level) -> Self {
        let mut file = self.clone();
        if let Some(overlay) = level.overlay() {
            file = file.with(overlay);
            file.env.insert(ENTROPY.0.to_owned(), ENTROPY.1.to_owned());
        }
        file
    }

    /// Returns the file with an overlay merged over its policy.
    pub fn with(&self, overlay: Value) -> Self {
        let mut policy: Value = serde_json::from_str(&self.policy).unwrap_or_default();
        callbound::policy::merge(&mut policy, overlay);
        Self { policy: policy.to_string(), ..self.clone() }
    }
}

/// Loads every file of the corpus, in the order of their names; `CALLBOUND_CASES` names another folder.
pub fn load_all() -> Result<Vec<File>, String> {
    let default = super::require::root().join("tests/cases");
    let folder = std::env::var_os("CALLBOUND_CASES").map_or(default, PathBuf::from);
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| load(path).map_err(|error| format!("{}: {error}", path.display()))).collect()
}

/// Loads one file.
pub fn load(path: &Path) -> Result<File, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let raw: RawFile = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (policy, parsed) = policy_text(&raw, path.parent().unwrap_or(Path::new(".")))?;
    let mint = Mint { recipes: raw.tokens, policy: parsed, env: raw.env.clone() };
    let vars = Vars { keys: raw.keys, kept: BTreeMap::new(), mint };
    Ok(File { name, policy, env: raw.env, peer: raw.peer, cases: raw.cases, vars })
}

fn policy_text(raw: &RawFile, folder: &Path) -> Result<(String, Value), String> {
    let base = match &raw.policy {
        Value::String(path) => {
            fs::read_to_string(folder.join(path)).map_err(|error| format!("{path}: {error}"))?
        }
        object => object.to_string(),
    };
    let mut parsed: Value = serde_json::from_str(&base).map_err(|error| format!("policy: {error}"))?;
    if raw.overlay.is_null() {
        return Ok((base, parsed));
    }
    callbound::policy::merge(&mut parsed, raw.overlay.clone());
    Ok((parsed.to_string(), parsed))
}

/// Adds the headers of a handshake; those of the request win.
fn add_handshake(headers: &mut Headers) {
    for (name, value) in HANDSHAKE {
        if !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
    }
}

/// Reads a present member, even if it is `null`.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    Base64::decode_vec(text).map_err(|error| format!("base64: {error}"))
}
