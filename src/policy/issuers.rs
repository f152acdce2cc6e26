//! Section `issuers`: issuers whose tokens are accepted, within the rights of an API key.

use std::rc::Rc;

use super::api_keys::Keys;
use super::definitions::Definitions;
use super::families::{ClockDocument, check_family_name, check_not_empty};
use super::fields::Pointer;
use super::ids::check_scopes;
use super::reader::{List, Members, Reader, document};
use super::teams::Reach;
use super::text_bounds::{TextBound, find};
use super::token_keys::{AlgorithmWord, JwkDocument};
use crate::credential::{Algorithm, ClaimPath, ClaimRules, Issuer, Key, KeySet, KeySource, RemoteJwks};

document! {
    /// One issuer whose tokens are accepted.
    pub struct IssuerDocument {
        /// The `iss` claim of its tokens.
        issuer: String,
        /// Value that the `aud` claim is or holds.
        audience: String,
        /// The longest lifetime that is accepted, in seconds.
        ttl_seconds: MaxLifetimeDocument,
        /// Tolerated difference between clocks.
        clock: ClockDocument = ClockDocument::default(),
        /// Scopes of a token when `claims` names none for them.
        default_scopes: List<String> = List::default(),
        /// Entry of `api_keys` whose team, scopes and ceiling are the most a token has.
        acts_as: String,
        /// Signature algorithms accepted: some of `EdDSA`, `ES256`, `RS256`.
        algorithms: List<AlgorithmWord>,
        /// The `typ` headers accepted; absent: any.
        typ: Option<List<String>>,
        /// Keys that verify the tokens.
        jwks: JwksDocument,
        /// JSON pointers into the claims, with a closing `?` for a claim that may be absent.
        claims: ClaimsDocument = ClaimsDocument::default(),
        /// Our scopes for each of theirs; absent: the same names.
        scopes: Option<Members<List<String>>>,
    }
}

document! {
    /// The longest lifetime that is accepted, in seconds.
    pub struct MaxLifetimeDocument {
        /// The longest, at most 86,400.
        max: u64,
    }
}

document! {
    /// JSON pointers into an issuer's claims; text bounds by name.
    pub struct ClaimsDocument {
        /// The team, by its id.
        team: Option<String>,
        /// The scopes: a list, or one text with blanks.
        scopes: Option<String>,
        /// The caller IDs, in E.164.
        from: Option<String>,
        /// The destinations, in E.164.
        to: Option<String>,
        ..texts: String,
    }
}

document! {
    /// Keys of an issuer: `keys` or `url`, not both.
    pub struct JwksDocument {
        /// The public keys themselves, each with a `kid`; this or `url`.
        keys: Option<List<JwkDocument>>,
        /// URL the keys are fetched from, as in `https://idp.example/keys`.
        url: Option<String>,
        /// The gateway's cluster that serves the URL.
        cluster: Option<String>,
        /// Seconds until the keys are fetched again; default 300.
        refresh_seconds: u64 = 300,
        /// Seconds the old keys are accepted after the last successful fetch; default 3600.
        stale_seconds: u64 = 3_600,
        /// Seconds between fetches that unknown keys cause; default 30.
        cooldown_seconds: u64 = 30,
    }
}

/// Compiled sections that an issuer refers to.
pub(super) struct IssuerContext<'a> {
    /// Teams, users, platform and bounds.
    pub(super) definitions: &'a Definitions<'a>,
    /// API keys that issuers act as.
    pub(super) keys: &'a Keys,
    /// Names of the families, which issuers share.
    pub(super) families: &'a [&'a str],
    /// True when the host's callouts name an address instead of a cluster.
    pub(super) calls_addresses: bool,
}

/// Compiles the issuers.
pub(super) fn compile(
    documents: &Members<IssuerDocument>,
    context: &IssuerContext<'_>,
    at: &Reader<'_>,
) -> Vec<Rc<Issuer>> {
    let mut issuers: Vec<Rc<Issuer>> = Vec::new();
    for (name, document) in documents.iter() {
        let at = at.member(name);
        check_family_name(name, &at);
        if context.families.contains(&name.as_str()) {
            at.refuse("a family of `tokens` has this name; routes accept both by name");
        }
        if issuers.iter().any(|other| other.issuer == document.issuer) {
            at.member("issuer").refuse("duplicate `issuer`: a token would be of two issuers");
        }
        issuers.extend(document.compile(name, context, &at).map(Rc::new));
    }
    issuers
}

impl IssuerDocument {
    fn compile(&self, name: &str, context: &IssuerContext<'_>, at: &Reader<'_>) -> Option<Issuer> {
        self.check(context, at);
        let algorithms: Vec<Algorithm> = self.algorithms.iter().map(|word| Algorithm::from(*word)).collect();
        let clock = self.clock.compile(&at.member("clock"));
        let keys = self.jwks.compile(&algorithms, context.calls_addresses, &at.member("jwks"));
        let claims = self.claim_rules(context.definitions, at);
        Some(Issuer {
            name: name.to_owned(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            key_id: self.acts_as.clone(),
            algorithms,
            types: self.typ.as_deref().map(<[String]>::to_vec),
            max_ttl: self.ttl_seconds.max,
            clock,
            keys: keys?,
            claims,
        })
    }

    fn check(&self, context: &IssuerContext<'_>, at: &Reader<'_>) {
        at.member("ttl_seconds").member("max").check_range(self.ttl_seconds.max, 1..=86_400, "seconds");
        check_not_empty(&self.issuer, &at.member("issuer"));
        check_not_empty(&self.audience, &at.member("audience"));
        if self.algorithms.contains(&AlgorithmWord::Hs256) {
            at.member("algorithms").refuse("expected some of `EdDSA`, `ES256` and `RS256`");
        }
        let definitions = context.definitions;
        check_scopes(&self.default_scopes, &definitions.platform.scopes, &at.member("default_scopes"));
        at.member("acts_as").check_listed(&self.acts_as, "api_keys", definitions.key_ids.iter().copied());
        let owner = context.keys.with_id(&self.acts_as).and_then(|key| definitions.tree.party(key.owner));
        // A user's bounds are written for the user: tokens of one of their teams would escape them.
        if self.claims.team.is_some() && owner.is_some_and(|owner| owner.reach == Reach::User) {
            at.member("claims")
                .member("team")
                .refuse("the key of `acts_as` belongs to a user, who has no teams to act for");
        }
    }

    fn claim_rules(&self, definitions: &Definitions<'_>, at: &Reader<'_>) -> ClaimRules {
        let claims_at = at.member("claims");
        let mapped = |text: &Option<String>, name| claim(text.as_deref()?, &claims_at.member(name));
        let rules = ClaimRules {
            team: mapped(&self.claims.team, "team"),
            scopes: mapped(&self.claims.scopes, "scopes"),
            from: mapped(&self.claims.from, "from"),
            to: mapped(&self.claims.to, "to"),
            texts: self.claims.texts(definitions.bounds, &claims_at),
            renamed: self
                .scopes
                .as_ref()
                .map(|names| names.iter().map(|(theirs, ours)| (theirs.clone(), ours.to_vec())).collect()),
            default_scopes: self.default_scopes.to_vec(),
        };
        if let Some(renamed) = &self.scopes {
            let at = at.member("scopes");
            for (theirs, ours) in renamed.iter() {
                check_scopes(ours, &definitions.platform.scopes, &at.member(theirs));
            }
            if self.claims.scopes.is_none() {
                at.refuse("without `claims.scopes` there are no scopes to rename");
            }
        }
        rules
    }
}

impl ClaimsDocument {
    fn texts(&self, bounds: &[Rc<TextBound>], at: &Reader<'_>) -> Vec<(String, ClaimPath)> {
        let mut texts = Vec::new();
        for (name, text) in self.texts.iter() {
            let at = at.member(name);
            if find(bounds, name).is_none() {
                let names = bounds.iter().map(|bound| bound.name.as_str());
                at.check_named(name, "one of `platform.bounds`", names, &["team", "scopes", "from", "to"]);
            }
            texts.extend(claim(text, &at).map(|claim| (name.clone(), claim)));
        }
        texts
    }
}

fn claim(text: &str, at: &Reader<'_>) -> Option<ClaimPath> {
    let (text, optional) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
    let pointer = Pointer::parse(text);
    if pointer.is_none() {
        at.refuse("expected a JSON pointer into the claims, as in `/scope` or `/org/id?`");
    }
    pointer.map(|pointer| ClaimPath { names: pointer.names().to_vec(), optional })
}

impl JwksDocument {
    fn compile(&self, algorithms: &[Algorithm], calls_addresses: bool, at: &Reader<'_>) -> Option<KeySource> {
        match (&self.keys, &self.url) {
            (Some(keys), None) => Some(KeySource::Inline(inline_keys(keys, algorithms, &at.member("keys")))),
            (None, Some(url)) => self.remote(url, calls_addresses, at).map(KeySource::Remote),
            _ => {
                at.refuse("expected either `keys` or `url`");
                None
            }
        }
    }

    fn remote(&self, url: &str, calls_addresses: bool, at: &Reader<'_>) -> Option<RemoteJwks> {
        let parts = split_url(url);
        if parts.is_none() {
            at.member("url").refuse("expected a URL with a path, as in `https://idp.example/keys`");
        }
        let cluster = self.cluster.as_deref().or(calls_addresses.then_some(""));
        if cluster.is_none() {
            at.member("cluster").refuse("missing; name the gateway's cluster that serves the URL");
        }
        let (refresh, stale, cooldown) = (self.refresh_seconds, self.stale_seconds, self.cooldown_seconds);
        if cooldown == 0 || refresh < cooldown || stale < refresh || stale > 604_800 {
            at.refuse("expected 1 <= cooldown_seconds <= refresh_seconds <= stale_seconds <= 604800");
        }
        let (scheme, authority, path) = parts?;
        Some(RemoteJwks {
            cluster: cluster?.to_owned(),
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            path: format!("/{path}"),
            refresh,
            stale,
            cooldown,
        })
    }
}

/// Splits a URL into scheme, authority, and path without its first slash.
fn split_url(url: &str) -> Option<(&str, &str, &str)> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'#' | b'@');
    let (scheme, rest) = url.split_once("://").filter(|_| url.bytes().all(fits))?;
    let (authority, path) = rest.split_once('/')?;
    (matches!(scheme, "http" | "https") && !authority.is_empty()).then_some((scheme, authority, path))
}

fn inline_keys(keys: &List<JwkDocument>, allowed: &[Algorithm], at: &Reader<'_>) -> KeySet {
    let mut set = KeySet::default();
    for (at, document) in keys.each(at) {
        let jwk = document.compile();
        let algorithm = jwk.algorithm().filter(|algorithm| allowed.contains(algorithm));
        match (&jwk.kid, algorithm.map(|algorithm| Key::from_jwk(algorithm, &jwk))) {
            (None, _) => at.refuse("missing `kid`"),
            (_, None) => at.refuse("not a key for one of `algorithms`"),
            (_, Some(Err(error))) => at.refuse(error.to_string()),
            (Some(kid), Some(Ok(key))) => {
                let is_new = set.add(kid, key);
                at.member("kid").check_unique("key id", kid, !is_new);
            }
        }
    }
    set
}
