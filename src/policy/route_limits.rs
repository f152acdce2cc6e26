//! The limits of all routes: which limit counts where, and the maxima that teams, users and keys have for themselves.

use std::rc::Rc;

use super::accept::Accept;
use super::ids::{check_header_name, check_id, check_labels};
use super::limits::{Counts, Limit, LimitDocument, Limits, Measure, Per, Shown};
use super::path_templates::Match;
use super::reader::{List, Members, Reader};
use super::route::{LocalReply, Route};
use super::route_definitions::RouteDefinitions;

/// Sections whose limits are compiled together.
pub(super) struct LimitDocuments<'d> {
    pub(super) limits: &'d List<LimitDocument>,
    pub(super) headers: &'d Members<Shown>,
}

impl LimitDocuments<'_> {
    /// Compiles the limits and gives each route those that count there.
    pub(super) fn compile(
        &self,
        definitions: &RouteDefinitions<'_>,
        routes: &mut [(Route, Vec<Match>)],
        root: &Reader<'_>,
    ) -> Limits {
        let at = root.member("limits");
        let mut read: Vec<(Reader<'_>, &LimitDocument, Rc<Limit>)> = Vec::new();
        for (at, document) in self.limits.each(&at) {
            check_id(&document.id, &at.member("id"));
            check_labels(&document.labels, &at.member("labels"));
            let is_taken = read.iter().any(|(_, other, _)| other.id == document.id);
            at.member("id").check_unique("limit id", &document.id, is_taken);
            read.extend(document.compile(definitions, &at).map(|limit| (at, document, Rc::new(limit))));
        }
        read.sort_by_key(|(.., limit)| limit.per.iter().min().copied());
        for (at, document, limit) in &read {
            document.assign(limit, routes, at);
        }
        let list = read.into_iter().map(|(.., limit)| limit).collect();
        Limits { list, headers: self.headers(&root.member("limit_headers")) }
    }

    fn headers(&self, at: &Reader<'_>) -> Vec<(String, Shown)> {
        for name in self.headers.names() {
            let at = at.member(name);
            check_header_name(name, &at);
            // The header replaces one of the upstream's.
            let is_ours = ["x-callbound", "x-envoy-"].iter().any(|prefix| name.starts_with(prefix));
            let is_taken = ["ratelimit-policy", "x-content-type-options", "x-request-id"].contains(&name);
            let is_own = name.starts_with("x-") || name.starts_with("ratelimit-");
            if !at.has_error() && (is_ours || is_taken || !is_own) {
                at.refuse("expected a header of its own, as in `x-ratelimit-limit`");
            }
        }
        self.headers.0.clone()
    }
}

impl LimitDocument {
    /// Adds a limit to the routes where it counts; refuses one that counts on no route.
    fn assign(&self, limit: &Rc<Limit>, routes: &mut [(Route, Vec<Match>)], at: &Reader<'_>) {
        let routes_at = at.member("routes");
        for (at, name) in self.routes.iter().flat_map(|names| names.each(&routes_at)) {
            at.check_listed(name, "routes", routes.iter().map(|(route, _)| route.id.as_str()));
            let named = routes.iter().map(|(route, _)| route).find(|route| route.id == *name);
            if named.is_some_and(|route| !limit.counts_on(route)) {
                at.refuse(format!("route `{name}` has nothing that this limit counts"));
            }
        }
        let is_named = |route: &Route| self.routes.as_ref().map(|names| names.contains(&route.id));
        let mut is_used = false;
        for (route, _) in routes.iter_mut().filter(|(route, _)| limit.counts_on(route)) {
            // A thief who exhausts the limit of a stolen key must not keep its owner from revoking the key.
            let is_exempt = is_named(route).is_none() && matches!(route.local, Some(LocalReply::Revoke(_)));
            if is_named(route) != Some(false) && !is_exempt {
                route.limits.push(Rc::clone(limit));
                is_used = true;
            }
        }
        if !is_used && !at.has_error() {
            at.refuse("no route has anything that this limit counts");
        }
    }
}

impl Limit {
    /// Returns whether a route has events that the limit counts.
    fn counts_on(&self, route: &Route) -> bool {
        route.accept != Accept::Public
            && (self.counts != Counts::Mints || route.mint().is_some())
            && (!matches!(self.measure, Measure::Sessions { .. }) || route.is_upgrade)
            && self.credentials.as_ref().is_none_or(|counted| route.accept.shares(counted))
    }
}

/// Checks of the maxima that teams, users and keys have for themselves.
pub(super) struct Maxima<'a> {
    pub(super) limits: &'a Limits,
    pub(super) documents: &'a List<LimitDocument>,
    pub(super) root: &'a Reader<'a>,
}

impl Maxima<'_> {
    fn find(&self, name: &str, at: &Reader<'_>) -> Option<&Rc<Limit>> {
        at.check_listed(name, "limits", self.documents.iter().map(|limit| limit.id.as_str()));
        let limits_at = self.root.member("limits");
        let mut named = self.documents.each(&limits_at).filter(|(_, limit)| limit.id == name);
        // A maximum is not compared with a limit that has a fault.
        let is_sound = named.all(|(at, _)| !at.has_error());
        self.limits.list.iter().find(|limit| is_sound && limit.id == name)
    }

    /// Checks the maxima of a team or user.
    pub(super) fn check_party(&self, maxima: &Members<u64>, is_top: bool, at: &Reader<'_>) {
        for (name, max) in maxima.iter() {
            let at = at.member(name);
            let Some(limit) = self.find(name, &at) else { continue };
            limit.check_maximum(limit.is_per_team(), *max, &at);
            // All teams below the top share one count, and so one maximum.
            if limit.per.contains(&Per::Organization) && !is_top {
                at.refuse("per `organization` only the maximum of the top team counts");
            }
        }
    }

    /// Checks the maxima of a key.
    pub(super) fn check_key(&self, maxima: &Members<u64>, at: &Reader<'_>) {
        for (name, max) in maxima.iter() {
            let at = at.member(name);
            if let Some(limit) = self.find(name, &at) {
                limit.check_maximum(limit.is_per_key(), *max, &at);
            }
        }
    }
}
