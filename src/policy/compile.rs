//! Compiles a document to a [`Policy`] in one pass that collects every problem. The caller supplies text and secrets.

use sha2::{Digest as _, Sha256};

use std::rc::Rc;

use super::api_keys::{self, Keys};
use super::compiled::Policy;
use super::definitions::Definitions;
use super::document::{AuditWord, PolicyDocument, Version};
use super::endpoints::{self, Endpoints};
use super::families::CompiledFamily;
use super::host::{Hold, HoldWord, Host, Profile, SessionsEndedBy};
use super::host_checks::HostChecks;
use super::issuers::IssuerContext;
use super::limits::{Counts, Limits};
use super::platform::Platform;
use super::read_headers::ReadHeaders;
use super::reader::{FromJson, Reader, parse};
use super::refusals::Refusals;
use super::report::{ConfigError, Report};
use super::route::{LocalReply, Route};
use super::route_checks::RouteChecks;
use super::route_definitions::RouteDefinitions;
use super::route_limits::{LimitDocuments, Maxima};
use super::routes::Routes;
use super::secrets::{Purpose, SecretLoader, Secrets};
use super::store::{Remembers, StoreBackend, StoreContext, StoreRule};
use super::teams::{PartyDocuments, Tree};
use super::text_bounds::TextBound;
use super::{credentials, families, issuers, revocations};
use super::{routes, suggest, template, text_bounds, upstream_credentials};
use crate::credential::{Algorithm, Issuer, check_seed, is_text};
use crate::hex::hex;
use crate::store::Strength;

/// Compiles a policy document.
///
/// # Errors
///
/// [`ConfigError`] with every problem, in the order of the sections.
pub fn compile(text: &[u8], secrets: &Secrets<'_>) -> Result<Policy, ConfigError> {
    let report = Report::default();
    let root = Reader::new(&report);
    let policy = parse(text, &root).and_then(|json| {
        let document = PolicyDocument::from_json(&json, &root);
        let loader = SecretLoader::new(secrets, document.allow_inline_secrets);
        let compiler = Compiler { document: &document, loader: &loader, root };
        let policy = compiler.compile();
        policy.map(|policy| Policy { secret_names: loader.into_names(), ..policy })
    });
    let (policy, warnings) = report.into_value(policy, text)?;
    Ok(Policy { revision: revision(text), warnings, ..policy })
}

fn revision(text: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    hex(&digest).chars().take(12).collect()
}

/// Compiles the sections of one document, each after those it refers to.
struct Compiler<'a> {
    document: &'a PolicyDocument,
    loader: &'a SecretLoader<'a>,
    root: Reader<'a>,
}

/// Sections about the platform, its parties and their endpoints.
struct Parties {
    platform: Platform,
    bounds: Vec<Rc<TextBound>>,
    tree: Tree,
    keys: Keys,
    endpoints: Endpoints,
}

/// Sections about credentials.
struct CredentialSections<'d> {
    credentials: credentials::Credentials,
    families: Vec<CompiledFamily<'d>>,
    issuers: Vec<Rc<Issuer>>,
}

/// Sections about routes, and what they refer to.
struct Requests {
    routes: Routes,
    vocabulary: Vec<String>,
    limits: Limits,
}

/// Everything compiled, before it becomes the policy.
struct Sections<'d> {
    hold: Hold,
    entropy: Option<Vec<u8>>,
    parties: Parties,
    accepted: CredentialSections<'d>,
    prefixes: Vec<String>,
    requests: Requests,
    store: StoreRule,
}

impl Compiler<'_> {
    fn compile(&self) -> Option<Policy> {
        let (document, root) = (self.document, &self.root);
        let Version = document.version;
        root.member("hold_seconds").check_range(document.hold_seconds, 1..=300, "seconds");
        let profile = document.host.profile();
        let (hold, entropy) = (self.hold(profile), self.entropy(profile));
        let parties = self.parties();
        let accepted = self.credentials(&parties, profile);
        let prefixes = self.prefixes(&accepted);
        let refusals = document.refusals.compile(&root.member("refusals"));
        let requests = self.requests(&parties, &accepted, refusals.as_ref());
        let store = self.store(&parties, &accepted.issuers, profile);
        self.check_strength(&requests.limits);
        let sections = Sections { hold, entropy, parties, accepted, prefixes, requests, store };
        let remembers = self.remembers(&sections);
        self.check_host(&sections);
        Some(self.policy(sections, refusals?, remembers))
    }

    fn check_host(&self, sections: &Sections<'_>) {
        HostChecks {
            profile: self.document.host.profile(),
            hold: sections.hold,
            ends_sessions: self.document.sessions_ended_by == SessionsEndedBy::Gateway,
            has_seed: self.document.entropy.is_some(),
            families: &sections.accepted.families,
            issuers: &sections.accepted.issuers,
            keys: &sections.parties.keys,
            tree: &sections.parties.tree,
            routes: &sections.requests.routes,
            limits: &sections.requests.limits,
            limit_documents: &self.document.limits,
            store: &sections.store,
        }
        .check(&self.root);
    }

    fn policy(&self, sections: Sections<'_>, refusals: Refusals, remembers: Remembers) -> Policy {
        let Sections { hold, entropy, parties, accepted, prefixes, requests, store } = sections;
        let CredentialSections { credentials, families, issuers } = accepted;
        Policy {
            host: self.document.host.profile(),
            hold,
            entropy: entropy.unwrap_or_default(),
            ends_sessions: self.document.sessions_ended_by == SessionsEndedBy::Gateway,
            prefixes,
            key_formats: credentials.key_formats,
            forward_credential: credentials.forward,
            families: families.into_iter().map(|family| family.family).collect(),
            issuers,
            keys: parties.keys,
            bounds: parties.bounds,
            endpoints: parties.endpoints,
            tree: parties.tree,
            platform: parties.platform,
            read_headers: ReadHeaders::of(&credentials.locations, &requests.routes),
            locations: credentials.locations,
            vocabulary: requests.vocabulary,
            routes: requests.routes,
            unmatched: self.document.unmatched,
            refusals,
            hold_seconds: self.document.hold_seconds,
            revision: String::new(),
            counts: self.document.metrics,
            audits_all: self.document.audit == AuditWord::All,
            limits: requests.limits,
            remembers,
            store,
            secret_names: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn hold(&self, profile: &Profile) -> Hold {
        let word = self.document.hold_headers;
        if word == HoldWord::BufferFilter && self.document.host != Host::Envoy {
            self.root.member("hold_headers").refuse("only Envoy has a buffer filter; leave it out");
        }
        profile.hold(word)
    }

    fn entropy(&self, profile: &Profile) -> Option<Vec<u8>> {
        let at = self.root.member("entropy");
        let secret = self.document.entropy.as_ref()?;
        if profile.has_entropy {
            at.refuse("this host has randomness of its own, which is better; leave it out");
        }
        let purpose = Purpose { used_for: "*entropy", kid: "seed", algorithm: Algorithm::Hs256 };
        let bytes = self.loader.load(secret, &purpose, &at)?;
        if is_text(&bytes) {
            at.warn("the secret looks like a text that somebody wrote; make one with `callbound gen-secret`");
        }
        check_seed(&bytes).map_err(|error| at.refuse(error.to_string())).ok().map(|()| bytes)
    }

    fn parties(&self) -> Parties {
        let (document, root) = (self.document, &self.root);
        let mut platform = document.platform.compile(&root.member("platform"));
        self.add_features_of_routes(&mut platform);
        let endpoints = document.endpoints.as_deref().unwrap_or_default();
        let endpoint_ids = || endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let endpoint_ids = document.uses_endpoints().then(endpoint_ids);
        let bounds_at = root.member("platform");
        let bounds =
            text_bounds::compile(&document.platform.bounds, endpoint_ids, &bounds_at.member("bounds"));
        let parties = PartyDocuments { teams: &document.teams, users: &document.users };
        let tree = parties.compile(&bounds, root);
        let key_ids = document.api_keys.iter().map(|key| key.id.as_str()).collect();
        let definitions = Definitions { platform: &platform, bounds: &bounds, tree: &tree, key_ids };
        parties.check_rights(&platform, root);
        let keys_at = root.member("api_keys");
        let keys =
            api_keys::compile(&document.api_keys, &definitions, |id| document.is_issuer_key(id), &keys_at);
        let compile = |list| endpoints::compile(list, &definitions, &root.member("endpoints"));
        let endpoints = document.endpoints.as_ref().map(compile).unwrap_or_default();
        if document.api_keys.is_empty() && document.store.directory.is_none() {
            root.warn("the policy has no `api_keys`, so every guarded route refuses every request");
        }
        let bytes = tree.longest_reachable();
        if bytes > 4_096 {
            root.member("teams")
                .warn(format!("one key reaches so many teams that `x-callbound-teams` takes {bytes} bytes"));
        }
        Parties { platform, bounds, tree, keys, endpoints }
    }

    /// Adds features that only routes name, switched off; one that is nearly a listed feature is a mistake.
    fn add_features_of_routes(&self, platform: &mut Platform) {
        let routes_at = self.root.member("routes");
        for (at, route) in self.document.routes.each(&routes_at) {
            let features_at = at.member("features");
            for (at, name) in route.features.each(&features_at) {
                let names: Vec<&str> = platform.feature_names().collect();
                if names.contains(&name.as_str()) {
                    continue;
                }
                if suggest::nearest(name, &names).is_some() {
                    at.check_listed(name, "platform.features", names);
                    continue;
                }
                at.warn(format!("feature `{name}` is not in `platform.features`, so it is off for everyone"));
                platform.features.push((name.clone(), false));
            }
        }
    }

    fn check_family_scopes(&self, platform: &Platform) {
        let at = self.root.member("tokens");
        for (name, family) in self.document.tokens.iter() {
            family.check_scopes(&platform.scopes, &at.member(name));
        }
    }

    fn credentials(&self, parties: &Parties, profile: &Profile) -> CredentialSections<'_> {
        let (document, root) = (self.document, &self.root);
        let families = families::compile(&document.tokens, &document.token_keys, self.loader, root);
        self.check_family_scopes(&parties.platform);
        let issuers = self.issuers(parties, &families, profile);
        let credentials = document.credentials.compile(&root.member("credentials"));
        CredentialSections { credentials, families, issuers }
    }

    fn issuers(
        &self,
        parties: &Parties,
        families: &[CompiledFamily<'_>],
        profile: &Profile,
    ) -> Vec<Rc<Issuer>> {
        let key_ids = self.document.api_keys.iter().map(|key| key.id.as_str()).collect();
        let Parties { platform, bounds, tree, keys, .. } = parties;
        let names: Vec<&str> = families.iter().map(|family| family.family.name.as_str()).collect();
        let context = IssuerContext {
            definitions: &Definitions { platform, bounds, tree, key_ids },
            keys,
            families: &names,
            calls_addresses: profile.calls_addresses,
        };
        issuers::compile(&self.document.issuers, &context, &self.root.member("issuers"))
    }

    /// Collects all prefixes; refuses one that begins another, since a credential could be of two kinds.
    fn prefixes(&self, accepted: &CredentialSections<'_>) -> Vec<String> {
        let CredentialSections { credentials, families, .. } = accepted;
        let of_keys = credentials.key_formats.iter().map(|format| &format.prefix);
        let of_families = families.iter().map(|family| &family.family.prefix);
        let is_prefix = |prefix: &&String| prefix.is_empty() || prefix.len() >= 3;
        let prefixes: Vec<String> = of_keys.chain(of_families).filter(is_prefix).cloned().collect();
        for (index, prefix) in prefixes.iter().enumerate() {
            for other in prefixes.iter().take(index).filter(|other| prefix.is_empty() == other.is_empty()) {
                if prefix.starts_with(other.as_str()) || other.starts_with(prefix.as_str()) {
                    let at = self.root.member("credentials");
                    at.refuse(format!("the prefixes `{other}` and `{prefix}` begin alike"));
                }
            }
        }
        // A bare token is recognised by the header that only this family's keys write.
        let bare = families.iter().filter(|family| family.family.is_bare);
        let headers = bare.flat_map(|family| family.family.headers().map(|header| format!("{header}.")));
        prefixes.into_iter().filter(|prefix| !prefix.is_empty()).chain(headers).collect()
    }

    fn requests(
        &self,
        parties: &Parties,
        accepted: &CredentialSections<'_>,
        refusals: Option<&Refusals>,
    ) -> Requests {
        let (document, root) = (self.document, &self.root);
        let CredentialSections { credentials, families, issuers } = accepted;
        let upstream_at = root.member("upstream_credentials");
        let upstream =
            upstream_credentials::compile(&document.upstream_credentials, self.loader, &upstream_at);
        self.check_constants();
        let definitions = RouteDefinitions {
            platform: &parties.platform,
            bounds: &parties.bounds,
            families,
            issuers,
            issuer_names: document.issuers.names().collect(),
            locations: &credentials.locations,
            forwards_credential: credentials.forward,
            upstream_credentials: &upstream,
            constants: &document.constants,
            refusal_groups: document.refusals.groups.names().collect(),
            refusals,
        };
        let routes_at = root.member("routes");
        let mut list = routes::compile(&document.routes, &definitions, &routes_at);
        let (keys, tree) = (&parties.keys, &parties.tree);
        RouteChecks { routes: &list, definitions: &definitions, keys, tree }.check(root);
        let further = document.vocabulary.from.iter().chain(document.vocabulary.to.iter());
        let vocabulary = routes::vocabulary(&list, further);
        let limits = LimitDocuments { limits: &document.limits, headers: &document.limit_headers };
        let limits = limits.compile(&definitions, &mut list, root);
        self.check_maxima(&limits);
        let routes = Routes::build(list).unwrap_or_else(|conflicts| {
            for (index, message) in conflicts {
                routes_at.element(index).member("match").refuse(message);
            }
            Routes::default()
        });
        Requests { routes, vocabulary, limits }
    }

    /// Refuses a constant that no reply names: a misspelt one would leave the platform's own in force.
    fn check_constants(&self) {
        let mints = || self.document.routes.iter().filter_map(|route| route.mint.as_ref());
        let at = self.root.member("constants");
        for name in self.document.constants.names() {
            if !mints().any(|mint| template::uses_constant(&mint.reply.body.0, name)) {
                at.member(name).refuse(format!("no mint reply uses it, as in `\"$constants.{name}\"`"));
            }
        }
    }

    fn check_maxima(&self, limits: &Limits) {
        let document = self.document;
        let maxima = Maxima { limits, documents: &document.limits, root: &self.root };
        for (at, team) in document.teams.each(&self.root.member("teams")) {
            maxima.check_party(&team.limits, team.parent.is_none(), &at.member("limits"));
        }
        for (at, user) in document.users.each(&self.root.member("users")) {
            maxima.check_party(&user.limits, true, &at.member("limits"));
        }
        for (at, key) in document.api_keys.each(&self.root.member("api_keys")) {
            maxima.check_key(&key.limits, &at.member("limits"));
        }
    }

    fn store(&self, parties: &Parties, issuers: &[Rc<Issuer>], profile: &Profile) -> StoreRule {
        let Parties { platform, bounds, tree, .. } = parties;
        let context = StoreContext { profile, issuers, loader: self.loader, is_shared: tree.len() > 1 };
        let store = self.document.store.compile(&context, &self.root.member("store"));
        let key_ids = self.document.api_keys.iter().map(|key| key.id.as_str()).collect();
        let definitions = Definitions { platform, bounds, tree, key_ids };
        let at = self.root.member("revocations");
        let has_directory = self.document.store.directory.is_some();
        let revocations = revocations::compile(&self.document.revocations, &definitions, has_directory, &at);
        StoreRule { revocations, ..store }
    }

    /// Refuses a count whose reach is wider than the store's.
    fn check_strength(&self, limits: &Limits) {
        let (document, reach) = (self.document, self.document.store.strength());
        if !self.root.member("store").member("backend").was_read() {
            return;
        }
        let refuse = |strength: Strength, at: Reader<'_>| {
            if strength > reach {
                at.refuse(
                    "`fleet` needs a store that all gateways share: `\"store\": {\"backend\": \"redis\"}`",
                );
            }
        };
        for (at, limit) in document.limits.each(&self.root.member("limits")) {
            if limits.list.iter().any(|compiled| compiled.id == limit.id) {
                refuse(limit.strength.into(), at.member("strength"));
            }
        }
        let tokens_at = self.root.member("tokens");
        for (name, family) in document.tokens.iter() {
            let at = tokens_at.member(name);
            refuse(family.uses.strength.into(), at.member("uses").member("strength"));
            refuse(family.total_seconds.strength.into(), at.member("total_seconds").member("strength"));
        }
    }

    /// Returns whether the gateway's own memory is used, and warns when its entries are not sealed.
    fn remembers(&self, sections: &Sections<'_>) -> Remembers {
        let Sections { store, requests, .. } = sections;
        let counts = |route: &Route| {
            !route.limits.is_empty()
                || route.counts_uses()
                || matches!(route.local, Some(LocalReply::Revoke(_)))
        };
        let here = match store.backend {
            StoreBackend::Redis(_) => {
                requests.limits.list.iter().any(|limit| limit.counts == Counts::Failures)
            }
            StoreBackend::Memory => requests.routes.iter().any(counts),
        };
        if here && store.backend == StoreBackend::Memory && self.document.store.secret.is_none() {
            self.root.member("store").member("secret").warn(
                "not set, so another plugin in the same VM could change counts and revocations unnoticed",
            );
        }
        Remembers { here }
    }
}
