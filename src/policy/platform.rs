//! Section `platform`: features, scopes, and the text bounds that credentials can have.

use super::ids::{check_id, check_scope};
use super::reader::{List, Members, Reader, document};
use super::text_bounds::TextBoundDocument;

document! {
    /// Features, scopes and bounds of the whole platform.
    pub struct PlatformDocument {
        /// Every feature there is, on or off; off here is off for everyone.
        features: Members<bool>,
        /// Features that count as on only where these others are on as well.
        requires: Members<List<String>>,
        /// Every scope there is.
        scopes: List<String> = List::default(),
        /// Scopes whose holders hold these others as well.
        implies: Members<List<String>>,
        /// Text bounds that credentials can have, by name; callers, destinations and endpoints need no entry.
        bounds: Members<TextBoundDocument>,
        /// True when API keys may reach premium-rate destinations that their ceiling does not name; default true.
        premium_for_api_keys: bool = true,
    }
}

/// Features and scopes of the whole platform.
pub struct Platform {
    /// Every feature there is, on or off.
    pub features: Vec<(String, bool)>,
    /// The scopes that exist.
    pub scopes: Vec<String>,
    /// For a feature, the others that must be on as well.
    pub requires: Vec<(String, Vec<String>)>,
    /// For a scope, the others whose holders hold it as well.
    pub implied_by: Vec<(String, Vec<String>)>,
    /// True when API keys may reach premium-rate destinations; client tokens reach only those they name.
    pub premium_for_keys: bool,
}

impl Platform {
    /// Returns whether a feature is on; one that is not listed is off.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, on)| *on && name == feature)
    }

    /// Returns whether a list of scopes holds one, or another that implies it.
    pub fn holds(&self, list: &[String], scope: &str) -> bool {
        let is_held = |scope: &str| list.iter().any(|held| held == scope);
        let implied = |(name, by): &(String, Vec<String>)| name == scope && by.iter().any(|by| is_held(by));
        is_held(scope) || self.implied_by.iter().any(implied)
    }

    /// Checks that features are listed: a misspelt `webrct: false` would switch nothing off.
    pub(super) fn check_features<'n>(&self, names: impl Iterator<Item = &'n str>, at: &Reader<'_>) {
        for name in names {
            at.member(name).check_listed(name, "platform.features", self.feature_names());
        }
    }

    /// Returns the names of all features.
    pub(super) fn feature_names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|(name, _)| name.as_str())
    }
}

impl PlatformDocument {
    pub(super) fn compile(&self, at: &Reader<'_>) -> Platform {
        for (at, scope) in self.scopes.each(&at.member("scopes")) {
            check_scope(scope, &at);
        }
        for name in self.features.names() {
            check_id(name, &at.member("features").member(name));
        }
        let features: Vec<&str> = self.features.names().collect();
        check_graph(&self.requires, &features, "platform.features", &at.member("requires"));
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        check_graph(&self.implies, &scopes, "platform.scopes", &at.member("implies"));
        let arrows = |members: &Members<List<String>>| -> Vec<(String, Vec<String>)> {
            members.iter().map(|(name, list)| (name.clone(), list.to_vec())).collect()
        };
        Platform {
            features: self.features.0.clone(),
            scopes: self.scopes.to_vec(),
            requires: arrows(&self.requires),
            implied_by: reversed(&arrows(&self.implies)),
            premium_for_keys: self.premium_for_api_keys,
        }
    }
}

/// Checks both ends of every arrow: a misspelt one would open or close nothing.
fn check_graph(arrows: &Members<List<String>>, names: &[&str], section: &str, at: &Reader<'_>) {
    for (from, to) in arrows.iter() {
        at.member(from).check_listed(from, section, names.iter().copied());
        for (at, name) in to.each(&at.member(from)) {
            at.check_listed(name, section, names.iter().copied());
        }
    }
}

/// Returns all names that can be reached along arrows, the start included.
pub(super) fn closure(start: &str, arrows: &[(String, Vec<String>)]) -> Vec<String> {
    let mut reached = vec![start.to_owned()];
    let mut next = 0;
    while let Some(at) = reached.get(next).cloned() {
        for to in arrows.iter().filter(|(from, _)| *from == at).flat_map(|(_, to)| to) {
            if !reached.contains(to) {
                reached.push(to.clone());
            }
        }
        next += 1;
    }
    reached
}

/// Returns, for every scope that others imply, those others.
fn reversed(implies: &[(String, Vec<String>)]) -> Vec<(String, Vec<String>)> {
    let mut implied_by: Vec<(String, Vec<String>)> = Vec::new();
    for (holder, _) in implies {
        for scope in closure(holder, implies).into_iter().skip(1) {
            match implied_by.iter_mut().find(|(known, _)| *known == scope) {
                Some((_, by)) => by.push(holder.clone()),
                None => implied_by.push((scope, vec![holder.clone()])),
            }
        }
    }
    implied_by
}
