//! The policy document: every section, typed.

use super::api_keys::ApiKeyDocument;
use super::credentials::CredentialsDocument;
use super::endpoints::EndpointDocument;
use super::families::FamilyDocument;
use super::host::{HoldWord, Host, SessionsEndedBy};
use super::issuers::IssuerDocument;
use super::limits::{LimitDocument, Shown};
use super::platform::PlatformDocument;
use super::reader::{FromJson, List, Members, Raw, Reader, document, words};
use super::refusals::RefusalsDocument;
use super::revocations::RevocationDocument;
use super::route::RouteDocument;
use super::secrets::SecretDocument;
use super::store::StoreDocument;
use super::teams::{TeamDocument, UserDocument};
use super::token_keys::TokenKeyDocument;
use super::upstream_credentials::UpstreamCredentialDocument;

document! {
    /// Policy of one gateway. Members that are not named here are refused, and so is `null`.
    pub struct PolicyDocument {
        /// Version of this language: 1.
        version: Version,
        /// The gateway that loads the module.
        host: Host,
        /// Filter that holds a request's headers until its body was judged; `buffer_filter` only with `host: envoy`; default `filter`.
        hold_headers: HoldWord = HoldWord::Filter,
        /// Seed of the randomness of new tokens: a secret of 32 bytes, needed to mint on hosts without their own randomness (`host: kong`), refused on other hosts.
        entropy: Option<SecretDocument>,
        /// True when the policy itself may hold secrets, which config dumps show; default false.
        allow_inline_secrets: bool = false,
        /// Seconds a request may be held for its body, 1 to 300; default 10.
        hold_seconds: u64 = 10,
        /// Party that ends an open connection at its limit; default the gateway, where it can.
        sessions_ended_by: SessionsEndedBy = SessionsEndedBy::Gateway,
        /// Features, scopes and bounds of the whole platform.
        platform: PlatformDocument = PlatformDocument::default(),
        /// Formats of API keys, and places of the credential in a request.
        credentials: CredentialsDocument,
        /// Keys that sign and verify the tokens minted here.
        token_keys: List<TokenKeyDocument> = List::default(),
        /// Families of tokens minted here, by name.
        tokens: Members<FamilyDocument>,
        /// Issuers whose tokens are accepted, by name.
        issuers: Members<IssuerDocument>,
        /// Teams, with their numbers and bounds.
        teams: List<TeamDocument> = List::default(),
        /// Users, with their teams and numbers.
        users: List<UserDocument> = List::default(),
        /// Endpoints; the values of the bound `endpoint`.
        endpoints: Option<List<EndpointDocument>>,
        /// API keys, by the SHA-256 of their text.
        api_keys: List<ApiKeyDocument> = List::default(),
        /// Credentials for the upstream.
        upstream_credentials: List<UpstreamCredentialDocument> = List::default(),
        /// Further names this platform has used for callers and destinations; no body or query may hold one unread.
        vocabulary: VocabularyDocument = VocabularyDocument::default(),
        /// Values that mint replies use as `$constants.NAME`, by name.
        constants: Members<Raw>,
        /// Requests that are let through, and what each requires; every other is `unmatched`.
        routes: List<RouteDocument>,
        /// Backend and freshness of counts and revocations.
        store: StoreDocument = StoreDocument::default(),
        /// Limits of requests, sessions, new tokens and failed credentials.
        limits: List<LimitDocument> = List::default(),
        /// The platform's own headers about the tightest limit, by name in lower case.
        limit_headers: Members<Shown>,
        /// Keys and tokens that are revoked before they expire.
        revocations: List<RevocationDocument> = List::default(),
        /// Decisions that are logged; default `refusals`, which are refusals and new tokens.
        audit: AuditWord = AuditWord::Refusals,
        /// True when decisions are counted; default true. False is for Kong before 3.6, whose requests end with the first count.
        metrics: bool = true,
        /// Treatment of a request that no route matches; default `deny`.
        unmatched: Unmatched = Unmatched::Deny,
        /// Wording of refusals.
        refusals: RefusalsDocument,
    }
}

words! {
    /// Treatment of a request that no route matches.
    pub enum Unmatched {
        /// The request is answered with 404.
        Deny = "deny",
        /// The request passes unchanged, except for headers that only callbound may set.
        Pass = "pass",
    }
}

words! {
    /// Decisions that are logged.
    pub enum AuditWord {
        /// Refusals and new tokens.
        Refusals = "refusals",
        /// Every decision, allowed requests included.
        All = "all",
    }
}

document! {
    /// Further names this platform has used for callers and destinations.
    pub struct VocabularyDocument {
        /// Names of callers.
        from: List<String> = List::default(),
        /// Names of destinations.
        to: List<String> = List::default(),
    }
}

/// Version of the policy language: 1.
#[derive(Default)]
pub struct Version;

impl FromJson for Version {
    const KIND: (&'static str, &'static str) = ("the number 1", "versions");

    fn from_json(json: &crate::json::Json<'_>, at: &Reader<'_>) -> Self {
        if *json != crate::json::Json::Unsigned(1) {
            at.unread("expected 1, the version of this policy language");
        }
        Self
    }
}

impl PolicyDocument {
    /// Returns whether endpoints are a bound: they are listed, or a route names them.
    pub(super) fn uses_endpoints(&self) -> bool {
        self.endpoints.is_some() || self.routes.iter().any(RouteDocument::names_endpoints)
    }

    /// Returns whether an API key needs no digest: an issuer acts as it, or as an unlisted key that may be this one.
    pub(super) fn is_issuer_key(&self, id: &str) -> bool {
        let mut acted_as = self.issuers.iter().map(|(_, issuer)| issuer.acts_as.as_str());
        acted_as.any(|name| name == id || !self.api_keys.iter().any(|key| key.id == name))
    }
}
