//! Requirements of a policy that its host must meet; a feature that the host lacks is refused.

use std::rc::Rc;

use super::accept::{Accept, TokenSource};
use super::api_keys::Keys;
use super::families::CompiledFamily;
use super::host::{DuringCallouts, Hold, Profile, SharedMemory};
use super::largest_call::largest_call;
use super::limits::{Counts, LimitDocument, Limits, Measure};
use super::reader::{List, Reader};
use super::route::{ForwardedField, LocalReply, Route};
use super::routes::Routes;
use super::store::{StoreBackend, StoreRule};
use super::teams::Tree;
use crate::credential::{CredentialLocation, Family, Issuer, TokenVerifier};
use crate::store::SESSION_CAPACITY_PREALLOCATED;

/// Host and everything of a policy that depends on it.
pub(super) struct HostChecks<'a> {
    pub(super) profile: &'static Profile,
    pub(super) hold: Hold,
    pub(super) ends_sessions: bool,
    /// True when the policy gives a seed for randomness.
    pub(super) has_seed: bool,
    pub(super) families: &'a [CompiledFamily<'a>],
    pub(super) issuers: &'a [Rc<Issuer>],
    pub(super) keys: &'a Keys,
    pub(super) tree: &'a Tree,
    pub(super) routes: &'a Routes,
    pub(super) limits: &'a Limits,
    pub(super) limit_documents: &'a List<LimitDocument>,
    pub(super) store: &'a StoreRule,
}

impl HostChecks<'_> {
    /// Refuses features that the host lacks.
    pub(super) fn check(&self, root: &Reader<'_>) {
        self.check_memory(root);
        self.check_callouts(root);
        self.check_query_credentials(root);
        self.check_ticks(root);
        self.check_signatures(root);
        self.check_calls(root);
        if !self.profile.has_entropy && !self.has_seed && self.names_sessions() {
            root.member("entropy").refuse(
                "missing: sessions and the answers of a remote store are distinguished by random names, which this host cannot make",
            );
        }
        let routes_at = root.member("routes");
        for (index, route) in self.routes.iter().enumerate() {
            self.check_route(route, &routes_at.element(index));
        }
    }

    fn check_route(&self, route: &Route, at: &Reader<'_>) {
        if route.mint().is_some() && !self.profile.has_entropy && !self.has_seed {
            at.member("mint").refuse_with(
                "this host has no randomness fit for tokens",
                "give `entropy`, as in `{\"env\": \"CALLBOUND_ENTROPY\"}`",
            );
        }
        let is_in_body = |field: &ForwardedField| matches!(field, ForwardedField::Bound(bound) if route.reads_in_body(bound));
        if !self.hold.lets_headers_change() && route.forward_fields.iter().any(is_in_body) {
            at.member("forward_fields").refuse(
                "a field of the body cannot be forwarded in a header: on this host headers are finished before the body is read",
            );
        }
        if self.ends_sessions && !self.profile.ends_streams && self.is_limited(route) {
            at.member("upgrade").refuse_with(
                "this host cannot end a connection, and sessions are limited here",
                "let the upstream do it, with `\"sessions_ended_by\": \"upstream\"`",
            );
        }
    }

    /// Returns whether sessions or replies of a store need random names.
    fn names_sessions(&self) -> bool {
        let is_sessions = |measure: &Measure| matches!(measure, Measure::Sessions { .. });
        self.store.backend != StoreBackend::Memory
            || self.limits.list.iter().any(|limit| is_sessions(&limit.measure))
            || self.routes.iter().any(|route| route.uses.reconnect.is_some())
    }

    /// Returns whether a session opened by a route may have a limit.
    fn is_limited(&self, route: &Route) -> bool {
        let is_accepted =
            |family: &Rc<Family>| route.accept.accepts_tokens_of(&TokenSource::Family(Rc::clone(family)));
        let mut mints = self.routes.iter().filter_map(Route::mint).filter(|rule| is_accepted(&rule.family));
        let mut families = self.families.iter().filter(|family| is_accepted(&family.family));
        let mut of_token = || {
            mints.any(|rule| rule.session.is_some() || rule.total.requested.is_some())
                || families.any(|family| family.document.total_seconds.default.is_some())
        };
        let mut ceilings = self.keys.iter().map(|key| &key.ceiling).chain(self.tree.all_ceilings());
        route.is_upgrade
            && route.accept != Accept::Public
            && (route.session.is_some() || ceilings.any(|ceiling| ceiling.session.is_some()) || of_token())
    }

    /// Checks that the host has memory for counts and revocations.
    fn check_memory(&self, root: &Reader<'_>) {
        if self.profile.memory == SharedMemory::Evicted && self.store.backend == StoreBackend::Memory {
            self.check_session_counts(root);
            self.refuse_revoking(
                "this host forgets its memory when it reloads its configuration, and revoked keys and tokens would be good again; \
                 revoke in the policy (`revocations`), or use `store.backend: \"redis\"`",
                root,
            );
        }
        if self.profile.memory != SharedMemory::None {
            return;
        }
        const NONE: &str = "this host has no memory that its workers share";
        for limit in &self.limits.list {
            if limit.counts == Counts::Failures {
                self.refuse_limit(&limit.id, &format!("{NONE}: failures cannot be counted"), root);
            } else if self.store.backend == StoreBackend::Memory {
                self.refuse_limit(&limit.id, &format!("{NONE}: nothing can be counted"), root);
            }
        }
        if self.store.backend != StoreBackend::Memory {
            return;
        }
        let routes_at = root.member("routes");
        for (index, route) in self.routes.iter().enumerate() {
            let at = routes_at.element(index);
            if route.counts_uses() {
                at.refuse(format!("{NONE}: uses of tokens cannot be counted"));
            }
        }
        self.refuse_revoking(&format!("{NONE}: nothing can be revoked by request"), root);
    }

    fn refuse_revoking(&self, message: &str, root: &Reader<'_>) {
        let routes_at = root.member("routes");
        for (index, route) in self.routes.iter().enumerate() {
            if matches!(route.local, Some(LocalReply::Revoke(_))) {
                routes_at.element(index).member("revoke").refuse(message);
            }
        }
    }

    /// Checks that requests wait for the answers of Redis.
    fn check_callouts(&self, root: &Reader<'_>) {
        if self.profile.during_callouts == DuringCallouts::Pass && self.store.backend != StoreBackend::Memory
        {
            root.member("store").member("backend").refuse_with(
                "this host lets a request pass while Redis is asked about it",
                "use `memory`, or load callbound in Kong or Envoy",
            );
        }
    }

    fn refuse_limit(&self, id: &str, message: &str, root: &Reader<'_>) {
        let limits_at = root.member("limits");
        for (at, _) in self.limit_documents.each(&limits_at).filter(|(_, limit)| limit.id == id) {
            at.refuse(message);
        }
    }

    /// Checks the counts of open sessions: one count is one value, which cannot grow in this host's memory.
    fn check_session_counts(&self, root: &Reader<'_>) {
        let most = SESSION_CAPACITY_PREALLOCATED as u64;
        for limit in &self.limits.list {
            if matches!(limit.measure, Measure::Sessions { max } if max > most) {
                let message = format!(
                    "this host's memory counts {most} open sessions at most; more need `store.backend: \"redis\"`"
                );
                self.refuse_limit(&limit.id, &message, root);
            }
        }
    }

    /// Warns of credentials in the query, which the host may write into its log.
    fn check_query_credentials(&self, root: &Reader<'_>) {
        if !self.profile.logs_requests {
            return;
        }
        let is_query = |location: &CredentialLocation| location.parameter().is_some();
        let routes_at = root.member("routes");
        for (index, route) in self.routes.iter().enumerate() {
            if route.locations.iter().flatten().any(is_query) {
                routes_at.element(index).member("credential_locations").warn(
                    "a credential in the query: when an upstream fails, this host writes the request's first line with its \
                     query into its error log",
                );
            }
        }
    }

    /// Checks that the host calls the module without a request, where keys, revocations or sessions need it.
    fn check_ticks(&self, root: &Reader<'_>) {
        if self.profile.has_ticks {
            return;
        }
        const NONE: &str = "this host calls the module for requests only";
        let issuers_at = root.member("issuers");
        for issuer in self.issuers.iter().filter(|issuer| issuer.keys.remote().is_some()) {
            issuers_at
                .member(&issuer.name)
                .member("jwks")
                .member("url")
                .refuse_with(format!("{NONE}, so nothing is fetched"), "give the keys themselves in `keys`");
        }
        if self.store.backend != StoreBackend::Memory {
            root.member("store")
                .member("backend")
                .refuse(format!("{NONE}, so it would neither learn of revocations nor renew sessions"));
        }
        for limit in &self.limits.list {
            if matches!(limit.measure, Measure::Sessions { .. }) {
                let message = format!("{NONE}, so it would not learn of the end of a session");
                self.refuse_limit(&limit.id, &message, root);
            }
        }
    }

    /// Checks that every request can take all its charges in one call to Redis.
    fn check_calls(&self, root: &Reader<'_>) {
        let (Some(most), StoreBackend::Redis(redis)) = (self.profile.max_callout_bytes, &self.store.backend)
        else {
            return;
        };
        let routes_at = root.member("routes");
        for (index, route) in self.routes.iter().enumerate() {
            let bytes = largest_call(route, redis);
            if bytes > most {
                let limits = route.limits.len();
                routes_at.element(index).refuse_with(
                    format!(
                        "a request here may need a call to Redis of {bytes} bytes, and this host sends {most} at most"
                    ),
                    format!("{limits} limits count here; name fewer routes in some"),
                );
            }
        }
    }

    fn check_signatures(&self, root: &Reader<'_>) {
        if self.profile.verifies {
            return;
        }
        const NONE: &str = "this host cannot verify RS256; use EdDSA, ES256 or HS256";
        let (tokens_at, issuers_at) = (root.member("tokens"), root.member("issuers"));
        for family in self.families.iter().map(|family| &family.family).filter(|family| family.needs_host()) {
            tokens_at.member(&family.name).refuse(NONE);
        }
        for issuer in self.issuers.iter().filter(|issuer| issuer.needs_host()) {
            issuers_at.member(&issuer.name).member("algorithms").refuse(NONE);
        }
    }
}
