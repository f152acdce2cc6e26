//! Section `routes`: a method and a path template with what they require.
//!
//! Paths and requirements only: credentials and bodies of requests belong to [`crate::decision`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::accept::Accept;
use super::bounds::{Bounds, BoundsDocument};
use super::counting::{MAX_SESSION_SECONDS, MAX_USES};
use super::credentials::{LocationDocument, compile_locations};
use super::fields::{FieldDocument, FieldRef, Pointer, RequestField};
use super::ids::{check_labels, check_scopes};
use super::introspect::{IntrospectDocument, IntrospectRule};
use super::limits::Limit;
use super::list::{ListDocument, ListingRule};
use super::mint::{MintDocument, MintRule};
use super::path_templates::{ANY_METHOD, Match, read_matches};
use super::reader::{List, Members, Reader, document, words};
use super::refusals::RefusalFormat;
use super::revocations::{RevokeDocument, RevokeRule};
use super::route_definitions::RouteDefinitions;
use super::text_bounds::{ENDPOINT, TextBound, find};
use super::upstream_credentials::{InsertedCredential, RouteCredentialDocument};
use crate::credential::CredentialLocation;

document! {
    /// One route, or several that require the same.
    pub struct RouteDocument {
        /// Name in logs and counters.
        id: String,
        /// `METHOD /path`, or several: `{name}` is one segment, `{*name}` the rest; `ANY`, on public routes, is every method without a route of its own.
        r#match: List<String>,
        /// `api_key`, families and issuers of tokens, or `public` alone, for requests without a credential.
        accept: List<String>,
        /// Places of the credential on this route instead.
        credential_locations: Option<List<LocationDocument>>,
        /// Protocol that the request must upgrade to; absent: every upgrade is refused.
        upgrade: Option<UpgradeWord>,
        /// Features that must be on.
        features: List<String> = List::default(),
        /// Scopes that must be held, all of them.
        scopes: List<String> = List::default(),
        /// Field that names a team, which must be within reach.
        tenant: Option<FieldDocument>,
        /// True when the upstream receives the team above as well; reads only; default false.
        include_parent: bool = false,
        /// Fields that are judged.
        bounds: Option<BoundsDocument>,
        /// Further members that the body may have, next to the judged ones.
        body: Option<BodyDocument>,
        /// Further parameters that the query may have, next to the judged ones.
        query: Option<QueryDocument>,
        /// The longest an upgraded connection may last, in seconds, at most 604,800.
        session_seconds: Option<u64>,
        /// Values the upstream receives in addition to the identity: `metadata`, `endpoint` and text bounds.
        forward_fields: List<String> = List::default(),
        /// Credential that replaces the client's before the upstream.
        upstream_credential: Option<RouteCredentialDocument>,
        /// The gateway answers with a new token.
        mint: Option<MintDocument>,
        /// The gateway answers with the state of a token.
        introspect: Option<IntrospectDocument>,
        /// The gateway answers with a list of the endpoints or applications within reach.
        list: Option<ListDocument>,
        /// The gateway answers with the public keys of these families.
        jwks: Option<List<String>>,
        /// The gateway revokes the key or tokens that the body names.
        revoke: Option<RevokeDocument>,
        /// Uses of a token on this route.
        uses: Option<RouteUsesDocument>,
        /// Group of `refusals` with the wording of this route.
        refusals: Option<String>,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

words! {
    /// Protocol that a connection may be upgraded to.
    pub enum UpgradeWord {
        /// A WebSocket (RFC 6455).
        Websocket = "websocket",
    }
}

document! {
    /// Further members of the body, next to the judged ones. With this section every other member is refused.
    pub struct BodyDocument {
        /// The only further members, as JSON pointers; absent: none.
        members: List<String> = List::default(),
    }
}

document! {
    /// Further parameters of the query, next to the judged ones. With this section every other parameter is refused.
    pub struct QueryDocument {
        /// The only further parameters; absent: none.
        members: List<String> = List::default(),
    }
}

document! {
    /// Uses of a token on a route.
    pub struct RouteUsesDocument {
        /// True when a request here is a use; default true.
        counted: bool = true,
        /// The most uses of a token, even if it carries more or none.
        max: Option<u64>,
        /// Seconds after its stream's end in which a token opens the same session again; on routes with `upgrade`.
        reconnect_seconds: Option<u64>,
    }
}

/// One compiled route.
pub struct Route {
    /// Name in logs and metrics.
    pub id: String,
    /// Credentials that are accepted.
    pub accept: Accept,
    /// Places of the credential; `None`: those of the section `credentials`.
    pub locations: Option<Vec<CredentialLocation>>,
    /// True when it is a WebSocket handshake.
    pub is_upgrade: bool,
    /// The features that must be on, with those they require.
    pub features: Vec<String>,
    /// The scopes that must all be held.
    pub scopes: Vec<String>,
    /// Field that names a team, which must be within reach.
    pub tenant: Option<FieldRef>,
    /// True when the upstream receives the team above as well.
    pub include_parent: bool,
    /// Fields that are judged.
    pub bounds: Option<Bounds>,
    /// The longest session opened here, in seconds.
    pub session: Option<u64>,
    /// Values the upstream receives in addition to the identity.
    pub forward_fields: Vec<ForwardedField>,
    /// Credential the upstream receives instead of the client's.
    pub upstream_credential: Option<InsertedCredential>,
    /// Reply of the gateway itself; `None`: the upstream answers.
    pub local: Option<LocalReply>,
    /// Uses of a token on this route.
    pub uses: UsesRule,
    /// Limits that count here.
    pub limits: Vec<Rc<Limit>>,
    /// Wording of refusals; `None`: the default.
    pub format: Option<Rc<RefusalFormat>>,
}

/// A policy has one route of each id.
impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// A route may hold a credential of the upstream, so only its name is shown.
impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

impl Route {
    /// Returns whether the body must be read before the decision.
    pub fn reads_body(&self) -> bool {
        matches!(self.local, Some(LocalReply::Mint(_) | LocalReply::Introspect(_) | LocalReply::Revoke(_)))
            || self.tenant.as_ref().is_some_and(|tenant| tenant.place.is_in_body())
            || self.bounds.as_ref().is_some_and(Bounds::reads_body)
    }

    /// Returns whether the value of a text bound comes from the body.
    pub fn reads_in_body(&self, bound: &TextBound) -> bool {
        let mut rules = self.bounds.iter().flat_map(|bounds| &bounds.texts);
        rules.any(|rule| *rule.bound == *bound && rule.source.reads_body())
    }

    /// Returns whether the route names a text bound, even as `any`.
    pub fn maps(&self, bound: &TextBound) -> bool {
        self.bounds.as_ref().is_some_and(|bounds| bounds.declared.iter().any(|declared| **declared == *bound))
    }

    /// Returns all fields this route reads to judge a request.
    pub fn places(&self) -> impl Iterator<Item = &RequestField> {
        let tenant = self.tenant.iter().map(|member| &member.place);
        self.bounds.iter().flat_map(Bounds::places).chain(tenant)
    }

    /// Returns the members of the body that are judged.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.places().filter_map(|place| match place {
            RequestField::Body(pointer) => Some(pointer),
            _ => None,
        })
    }

    /// Returns whether it mints tokens that can be used up, or limits the uses of a token.
    pub fn counts_uses(&self) -> bool {
        self.uses.max.is_some() || self.mint().is_some_and(MintRule::gives_counted)
    }

    /// Returns the rule of a route that mints.
    pub fn mint(&self) -> Option<&MintRule> {
        match &self.local {
            Some(LocalReply::Mint(rule)) => Some(rule),
            _ => None,
        }
    }
}

/// Judged value that the upstream receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedField {
    /// The value of a text bound.
    Bound(Rc<TextBound>),
    /// The token's metadata.
    Metadata,
}

/// Reply of the gateway itself.
pub enum LocalReply {
    /// A new token.
    Mint(Box<MintRule>),
    /// The state of a token.
    Introspect(IntrospectRule),
    /// The outcome of a revocation.
    Revoke(RevokeRule),
    /// A list of endpoints or applications.
    Listing(Box<ListingRule>),
    /// A fixed text: a key set.
    Document(Vec<u8>),
}

/// Uses of a token on one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsesRule {
    /// True when a request is a use.
    pub is_counted: bool,
    /// The most uses of a token, including the one here; `None`: as many as it carries.
    pub max: Option<u64>,
    /// Seconds after a stream's end in which its token opens it again without another use.
    pub reconnect: Option<u64>,
}

impl Default for UsesRule {
    fn default() -> Self {
        Self { is_counted: true, max: None, reconnect: None }
    }
}

impl RouteDocument {
    /// Returns whether the route names endpoints.
    pub(super) fn names_endpoints(&self) -> bool {
        self.list.is_some()
            || self.bounds.as_ref().is_some_and(|bounds| bounds.texts.get(ENDPOINT).is_some())
            || self.mint.as_ref().is_some_and(|mint| mint.request.texts.get(ENDPOINT).is_some())
            || self.forward_fields.iter().any(|name| name == ENDPOINT)
    }

    /// Compiles the route and the methods and paths it is for.
    pub(super) fn compile(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> (Route, Vec<Match>) {
        let matches = read_matches(&self.r#match, &at.member("match"));
        check_labels(&self.labels, &at.member("labels"));
        check_scopes(&self.scopes, &definitions.platform.scopes, &at.member("scopes"));
        let accept = self.accept(definitions, &at.member("accept"));
        self.check_public(&accept, &matches, at);
        self.check_methods(&matches, at);
        let features = self.features(definitions, &at.member("features"));
        let local = self.local(&accept, &features, definitions, at);
        let locations_at = at.member("credential_locations");
        let route = Route {
            locations: self.credential_locations.as_ref().map(|list| compile_locations(list, &locations_at)),
            is_upgrade: self.upgrade.is_some(),
            forward_fields: self.forward_fields(definitions, &at.member("forward_fields")),
            upstream_credential: self.upstream_credential(definitions, at),
            format: self.format(definitions, &at.member("refusals")),
            session: self.session_seconds,
            include_parent: self.include_parent,
            scopes: self.scopes.to_vec(),
            id: self.id.clone(),
            uses: self.uses(&accept, &at.member("uses")),
            accept,
            features,
            tenant: self.tenant.as_ref().and_then(|field| field.compile(&at.member("tenant"))),
            bounds: self.bounds(definitions, at),
            local,
            limits: Vec::new(),
        };
        (route, matches)
    }

    fn accept(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Accept {
        match &*self.accept {
            [only] if only == "public" => Accept::Public,
            _ => definitions.read_accept(&self.accept, at),
        }
    }

    fn check_public(&self, accept: &Accept, matches: &[Match], at: &Reader<'_>) {
        if *accept == Accept::Public && self.requires_something() {
            at.member("accept").refuse("a public route verifies no credential, so it can require nothing");
        }
        if *accept != Accept::Public && matches.iter().any(|(method, _)| method == ANY_METHOD) {
            at.member("match").refuse("`ANY` is for public routes; name the methods");
        }
    }

    fn requires_something(&self) -> bool {
        !self.features.is_empty()
            || !self.scopes.is_empty()
            || self.tenant.is_some()
            || self.bounds.is_some()
            || self.mint.is_some()
            || self.introspect.is_some()
            || self.list.is_some()
            || self.revoke.is_some()
            || self.uses.is_some()
            || self.include_parent
            || self.upstream_credential.is_some()
            || self.credential_locations.is_some()
            || self.upgrade.is_some()
            || !self.forward_fields.is_empty()
            || self.body.is_some()
            || self.query.is_some()
    }

    fn check_methods(&self, matches: &[Match], at: &Reader<'_>) {
        if self.include_parent && matches.iter().any(|(method, _)| method != "GET" && method != "HEAD") {
            at.member("include_parent").refuse("only reads may see what belongs to the team above");
        }
        let is_other = |method: &str| method != "GET" && method != ANY_METHOD;
        if self.upgrade.is_some() && matches.iter().any(|(method, _)| is_other(method)) {
            at.member("upgrade").refuse("a WebSocket handshake is a GET (RFC 6455 section 4.1)");
        }
        if let Some(seconds) = self.session_seconds {
            let at = at.member("session_seconds");
            at.check_range(seconds, 1..=MAX_SESSION_SECONDS, "seconds");
            if self.upgrade.is_none() {
                at.refuse("only a route with `upgrade` has sessions");
            }
        }
    }

    /// Returns the features the route requires, with all that those require.
    fn features(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Vec<String> {
        let platform = definitions.platform;
        let mut features: Vec<String> = Vec::new();
        for (at, name) in self.features.each(at) {
            at.check_listed(name, "platform.features", platform.feature_names());
            for name in super::platform::closure(name, &platform.requires) {
                if !features.contains(&name) {
                    features.push(name);
                }
            }
        }
        features
    }

    fn bounds(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Option<Bounds> {
        let document = self.bounds.as_ref();
        let compile = |document: &BoundsDocument| {
            document.compile(definitions.bounds, definitions.platform, &at.member("bounds"))
        };
        let mut bounds = document.map(compile);
        if self.body.is_none() && self.query.is_none() {
            return bounds;
        }
        let closed = bounds.get_or_insert_default();
        if self.body.is_some() && !closed.reads_body() {
            at.member("body").refuse("this route reads no body");
        }
        closed.closed = self.body.as_ref().map(|body| body.names(&at.member("body").member("members")));
        closed.closed_query = self.query.as_ref().map(|query| query.members.to_vec());
        bounds
    }

    fn forward_fields(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Vec<ForwardedField> {
        let read = |(at, name): (Reader<'_>, &String)| {
            if name == "metadata" {
                return Some(ForwardedField::Metadata);
            }
            let bound = find(definitions.bounds, name);
            if bound.is_none() {
                let names = definitions.bounds.iter().map(|bound| bound.name.as_str());
                at.check_listed(name, "platform.bounds", names.chain(["metadata"]));
            }
            bound.cloned().map(ForwardedField::Bound)
        };
        self.forward_fields.each(at).filter_map(read).collect()
    }

    fn upstream_credential(
        &self,
        definitions: &RouteDefinitions<'_>,
        at: &Reader<'_>,
    ) -> Option<InsertedCredential> {
        let at = at.member("upstream_credential");
        let document = self.upstream_credential.as_ref()?;
        if definitions.forwards_credential {
            at.refuse("with `credentials.forward_credential` the upstream would get two credentials");
        }
        document.compile(definitions.upstream_credentials, &at)
    }

    /// Returns the wording of the route's refusals; `None` for the default.
    fn format(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Option<Rc<RefusalFormat>> {
        let name = self.refusals.as_ref()?;
        at.check_listed(name, "refusals.groups", definitions.refusal_groups.iter().copied());
        definitions.refusals?.group(name)
    }

    fn uses(&self, accept: &Accept, at: &Reader<'_>) -> UsesRule {
        let Some(document) = &self.uses else { return UsesRule::default() };
        let RouteUsesDocument { counted, max, reconnect_seconds } = *document;
        if matches!(accept, Accept::Credentials { tokens, .. } if tokens.is_empty()) {
            at.refuse("this route accepts no tokens, and API keys are never counted");
        }
        if let Some(max) = max {
            at.member("max").check_range(max, 1..=MAX_USES, "");
        }
        if let Some(seconds) = reconnect_seconds {
            let at = at.member("reconnect_seconds");
            at.check_range(seconds, 1..=300, "seconds");
            if self.upgrade.is_none() {
                at.refuse("only a route with `upgrade` has sessions");
            }
        }
        if !counted && (max.is_some() || reconnect_seconds.is_some()) {
            at.refuse("uses that are not counted have neither `max` nor `reconnect_seconds`");
        }
        UsesRule { is_counted: counted, max, reconnect: reconnect_seconds }
    }

    /// Compiles the reply of the gateway itself, if the route has one.
    fn local(
        &self,
        accept: &Accept,
        features: &[String],
        definitions: &RouteDefinitions<'_>,
        at: &Reader<'_>,
    ) -> Option<LocalReply> {
        let kinds = [
            self.mint.is_some(),
            self.introspect.is_some(),
            self.list.is_some(),
            self.revoke.is_some(),
            self.jwks.is_some(),
        ];
        if kinds.into_iter().filter(|is_given| *is_given).count() > 1 {
            at.refuse("expected at most one of `mint`, `introspect`, `list`, `revoke` and `jwks`");
            return None;
        }
        let mint = self
            .mint
            .as_ref()
            .and_then(|mint| mint.compile(accept, features, definitions, &at.member("mint")));
        let introspect =
            self.introspect.as_ref().and_then(|doc| doc.compile(definitions, &at.member("introspect")));
        let list = self.list.as_ref().and_then(|list| list.compile(&at.member("list")));
        let revoke = self.revoke.as_ref().map(|doc| doc.compile(accept, &self.scopes, &at.member("revoke")));
        let jwks_at = at.member("jwks");
        let jwks = self.jwks.as_ref().map(|families| {
            if *accept != Accept::Public {
                jwks_at.refuse("public keys are for everyone: `accept` must be `\"public\"`");
            }
            LocalReply::Document(definitions.key_set(families, &jwks_at))
        });
        mint.map(|rule| LocalReply::Mint(Box::new(rule)))
            .or(introspect.map(LocalReply::Introspect))
            .or(list.map(|rule| LocalReply::Listing(Box::new(rule))))
            .or(revoke.map(LocalReply::Revoke))
            .or(jwks)
    }
}

impl BodyDocument {
    /// Returns the names of the members; each is at the top of the body.
    fn names(&self, at: &Reader<'_>) -> Vec<String> {
        let name = |(at, text): (Reader<'_>, &String)| {
            let pointer = Pointer::parse(text).filter(|pointer| pointer.parents().is_empty());
            if pointer.is_none() {
                at.refuse("expected a JSON pointer to a member of the body, as in `/note`");
            }
            pointer.map(|pointer| pointer.name().to_owned())
        };
        self.members.each(at).filter_map(name).collect()
    }
}
