//! From the document to a [`Policy`]: one pass, every problem collected, nothing half-applied.
//!
//! Refuses to know where the text and the secrets come from: both are arguments.

mod bounds;
mod directory;
mod host;
mod identity;
mod issuers;
mod keyring;
mod limits;
mod local;
mod memory;
mod platform;
mod routes;
mod shape;

pub use identity::read_key;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use keyring::CompiledFamily;
use platform::Credentials;

use super::bound::TextBound;
use super::config::{AuditConfig, Host, Members, MetricsConfig, Raw, SECTIONS, UnmatchedConfig};
use super::error::{ConfigError, Problem, Problems};
use super::{Directory, Keys, Platform, Policy, Profile, Refusals, Tree, Unmatched};
use crate::credential::{CredentialLocation, Issuer};
use crate::hex::hex;
use crate::json::Json;
use crate::number::Number;

/// How the compiler comes to the secrets a policy refers to.
pub enum Secrets<'a> {
    /// Looks an environment variable up.
    Lookup(&'a dyn Fn(&str) -> Option<String>),
    /// Leaves them out: the policy is checked but can neither mint nor verify with them.
    Unchecked,
}

/// Compiles a policy document.
///
/// # Errors
///
/// [`ConfigError`] with everything that is wrong, in the order of the sections.
pub fn compile(text: &[u8], secrets: &Secrets<'_>) -> Result<Policy, ConfigError> {
    let document = Document::parse(text)?;
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    document.check_sections(&mut problems);
    let host = host::host(&document, secrets, &mut problems, &mut warnings);
    let known = Known::read(&document, secrets, &mut problems, &mut warnings);
    let routes = routes::routes(&document, &known, &mut problems, &mut warnings);
    let store = memory::store(&document, host.profile, &known, secrets, &mut problems, &mut warnings);
    memory::check_strength(&document, &routes.limits, &known, &mut problems);
    let remembers = memory::remembers(&store, &routes.limits, routes.routes.iter());
    memory::check_seal(&document, &store, remembers, &mut warnings);
    let prefixes = platform::prefixes(&known.credentials, &known.families, &mut problems);
    let needs = host::Needs { document: &document, known: &known, routes: &routes, store: &store };
    host::check(&host, &needs, &mut problems);
    let single = Single::read(&document, &mut problems);
    problems.into_result()?;
    let missing =
        || ConfigError { problems: vec![Problem { path: String::new(), message: "incomplete".into() }] };
    let credentials = known.credentials.ok_or_else(missing)?;
    Ok(Policy {
        host: host.profile,
        hold: host.hold,
        entropy: host.entropy,
        ends_sessions: host.ends_sessions,
        carriers: credentials.carriers,
        prefixes,
        key_shapes: credentials.shapes,
        forward_credential: credentials.forward,
        families: known.families.into_iter().map(|family| family.family).collect(),
        issuers: known.issuers,
        keys: known.keys,
        bounds: known.bounds,
        directory: known.directory,
        tree: known.tree,
        platform: known.platform,
        vocabulary: routes.vocabulary,
        routes: routes.routes,
        unmatched: single.unmatched,
        refusals: known.refusals.ok_or_else(missing)?,
        hold_seconds: single.hold_seconds,
        revision: revision(text),
        counts: single.counts,
        audits_all: single.audits_all,
        limits: routes.limits,
        remembers,
        store,
        warnings,
    })
}

/// Settings that stand alone.
struct Single {
    unmatched: Unmatched,
    hold_seconds: u64,
    counts: bool,
    audits_all: bool,
}

impl Single {
    fn read(document: &Document<'_>, problems: &mut Problems) -> Self {
        let unmatched = document.section("unmatched", problems);
        let metrics: MetricsConfig = document.section("metrics", problems).unwrap_or_default();
        Self {
            unmatched: match unmatched {
                Some(UnmatchedConfig::Pass) => Unmatched::Pass,
                Some(UnmatchedConfig::Deny) | None => Unmatched::Deny,
            },
            hold_seconds: platform::hold_seconds(document, problems),
            counts: metrics == MetricsConfig::On,
            audits_all: document.section("audit", problems) == Some(AuditConfig::All),
        }
    }
}

fn revision(text: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    hex(&digest).chars().take(12).collect()
}

/// Everything that routes refer to by name.
struct Known {
    platform: Platform,
    bounds: Vec<TextBound>,
    credentials: Option<Credentials>,
    families: Vec<CompiledFamily>,
    tree: Tree,
    keys: Keys,
    issuers: Vec<Issuer>,
    directory: Directory,
    upstream_keys: Vec<(String, Option<String>)>,
    constants: Vec<(String, Raw)>,
    refusals: Option<Refusals>,
    styles: Vec<String>,
}

impl Known {
    /// Reads the sections before the routes, each with those it refers to.
    fn read(
        document: &Document<'_>,
        secrets: &Secrets<'_>,
        problems: &mut Problems,
        warnings: &mut Vec<String>,
    ) -> Self {
        let (platform, bounds) = platform::platform(document, problems, warnings);
        let credentials = platform::credentials(document, problems);
        let families = keyring::families(document, secrets, problems, warnings);
        let tree = identity::parties(document, &platform, &bounds, problems);
        let keys = identity::api_keys(document, &tree, &platform, &bounds, problems);
        let issuers = issuers::issuers(document, &bounds, &platform, &tree, &keys, problems);
        let directory = directory::directory(document, &tree, &platform, problems);
        let upstream_keys = directory::upstream_keys(document, secrets, problems, warnings);
        let constants: Members<Raw> = document.section("constants", problems).unwrap_or_default();
        document.check_constants(&constants, problems);
        let (refusals, styles) = platform::refusals(document, problems).unzip();
        let has_directory = document.0.get("store").is_some_and(|store| store.get("directory").is_some());
        if keys.is_empty() && !has_directory {
            warnings.push("api_keys: there are none, so every protected route refuses everybody".into());
        }
        let bytes = tree.longest_reachable();
        if bytes > 4_096 {
            warnings
                .push(format!("teams: one key reaches so many that `x-callbound-teams` takes {bytes} bytes"));
        }
        Self {
            platform,
            bounds,
            credentials,
            families,
            tree,
            keys,
            issuers,
            directory,
            upstream_keys,
            constants: constants.0,
            refusals,
            styles: styles.unwrap_or_default(),
        }
    }

    /// Where credentials stand on a route that says nothing else.
    fn carriers(&self) -> &[CredentialLocation] {
        self.credentials.as_ref().map_or(&[], |credentials| &credentials.carriers)
    }

    /// Whether a key or a team is bounded in a text.
    fn has_ceiling_in(&self, bound: usize) -> bool {
        let keys = self.keys.iter().map(|key| &key.ceiling);
        keys.chain(self.tree.all_ceilings()).any(|ceiling| ceiling.text(bound).is_some())
    }

    fn forwards_credential(&self) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| credentials.forward)
    }
}

/// The document as JSON, its sections still to be read.
struct Document<'a>(Json<'a>);

impl<'a> Document<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, ConfigError> {
        let refuse =
            |message: String| ConfigError { problems: vec![Problem { path: String::new(), message }] };
        match Json::parse(text) {
            Ok(json) if json.members().is_some() => Ok(Self(json)),
            Ok(_) => Err(refuse("expected one JSON object".into())),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// What the host gives that it names; `None` when it names none.
    fn profile(&self) -> Option<&'static Profile> {
        self.0.get("host")?.read::<Host>().ok().map(Host::profile)
    }

    fn check_sections(&self, problems: &mut Problems) {
        for (name, _) in self.0.members().unwrap_or_default() {
            if !SECTIONS.contains(&name.as_ref()) {
                problems.add(name.as_ref(), "no such section");
            }
        }
        if self.section::<u64>("version", problems) != Some(1) {
            problems.add("version", "expected 1");
        }
        let _: Option<bool> = self.section("allow_inline_secrets", problems);
    }

    /// The features that routes need; whether they are text is noted when the routes are read.
    fn features_of_routes(&self) -> impl Iterator<Item = &str> {
        let features = self.array("routes").iter().filter_map(|route| route.get("feature"));
        features
            .flat_map(|feature| match feature {
                Json::Array(names) => names.as_slice(),
                name => std::slice::from_ref(name),
            })
            .filter_map(Json::as_str)
    }

    /// Whether an issuer's tokens stand for a key: one that nobody presents.
    fn names_as_issuers_key(&self, id: &str) -> bool {
        let families = self.0.get("tokens").and_then(Json::members).unwrap_or_default();
        families.iter().any(|(_, family)| {
            family.get("external").and_then(|external| external.get("key")).and_then(Json::as_str) == Some(id)
        })
    }

    /// A constant no answer names is a misspelt one: the platform's own would stay in force.
    fn check_constants(&self, constants: &Members<Raw>, problems: &mut Problems) {
        fn names(json: &Json<'_>, wanted: &str) -> bool {
            match json {
                Json::String(text) => text.strip_prefix("$constants.") == Some(wanted),
                Json::Array(items) => items.iter().any(|item| names(item, wanted)),
                Json::Object(members) => members.iter().any(|(_, value)| names(value, wanted)),
                _ => false,
            }
        }
        for (name, _) in &constants.0 {
            if !self.array("routes").iter().any(|route| names(route, name)) {
                problems.add(
                    format!("constants.{name}"),
                    format!("no answer uses it, as in `\"$constants.{name}\"`"),
                );
            }
        }
    }

    fn allows_inline_secrets(&self) -> bool {
        matches!(self.0.get("allow_inline_secrets"), Some(Json::Bool(true)))
    }

    fn array(&self, name: &str) -> &[Json<'a>] {
        match self.0.get(name) {
            Some(Json::Array(items)) => items,
            _ => &[],
        }
    }

    /// Reads a section, when it is there.
    fn section<'j, T: Deserialize<'j>>(&'j self, name: &str, problems: &mut Problems) -> Option<T> {
        section(self.0.get(name)?, name, problems)
    }

    /// Reads a section that must be there; `hint` says what to write.
    fn required<'j, T: Deserialize<'j>>(
        &'j self,
        name: &str,
        hint: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        if self.0.get(name).is_none() {
            problems.add(name, format!("missing; {hint}"));
        }
        self.section(name, problems)
    }

    /// Reads the elements of a section one by one, each with its path.
    fn elements<'j, T: Deserialize<'j>>(&'j self, name: &str, problems: &mut Problems) -> Vec<(String, T)> {
        let items = match self.0.get(name) {
            None => &[],
            Some(Json::Array(items)) => items.as_slice(),
            Some(_) => {
                problems.add(name, "expected an array");
                &[]
            }
        };
        let paths = items.iter().enumerate().map(|(index, item)| (format!("{name}[{index}]"), item));
        paths
            .filter_map(|(path, item)| section(item, &path, problems).map(|element| (path, element)))
            .collect()
    }
}

/// Reads one value; a problem is noted under its full path.
fn section<'j, T: Deserialize<'j>>(json: &'j Json<'_>, path: &str, problems: &mut Problems) -> Option<T> {
    json.read().map_err(|error| problems.add(error.path_below(path), error.message)).ok()
}

/// Reads a list of numbers into sorted order; an empty list is an error, since absence already means "any".
fn number_list(list: Option<&Vec<String>>, path: &str, problems: &mut Problems) -> Option<Vec<Number>> {
    let list = list?;
    if list.is_empty() {
        problems.add(
            path,
            "an empty list allows nothing; leave it out to allow whatever the next wider level does",
        );
    }
    let mut numbers = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match Number::parse(text) {
            Some(number) if number.is_emergency() => {
                problems.add(format!("{path}[{index}]"), "an emergency number can never be allowed");
            }
            Some(number) => numbers.push(number),
            None => problems.add(format!("{path}[{index}]"), "not a number in E.164, as in `+15551234567`"),
        }
    }
    numbers.sort_unstable();
    Some(numbers)
}

/// Ids go into headers and logs: visible ASCII without separators.
fn check_id(id: &str, path: &str, problems: &mut Problems) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(fits) {
        problems.add(path, "an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`");
    }
}

/// Scopes stand in challenges and headers, separated by blanks (RFC 6749 section 3.3).
fn check_scope(scope: &str, path: &str, problems: &mut Problems) {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b'*');
    if scope.is_empty() || scope.len() > 64 || !scope.bytes().all(fits) {
        problems.add(path, "a scope is 1 to 64 visible characters without `\" \\ , *`");
    }
}

/// Repeats a name in a message, unless it could be a credential that stands in the wrong place.
fn quoted(name: &str) -> String {
    if name.len() <= 32 { format!("`{name}`") } else { "this name".to_owned() }
}

/// Checks a list of scopes that narrows: empty it would allow nothing, which is never meant.
fn check_scopes(scopes: Option<&[String]>, known: &[String], path: &str, problems: &mut Problems) {
    if scopes.is_some_and(<[String]>::is_empty) {
        problems.add(path, "an empty list allows nothing");
    }
    check_known_scopes(scopes.unwrap_or_default(), known, path, problems);
}

/// Checks that every scope of a list exists on the platform.
fn check_known_scopes(scopes: &[String], known: &[String], path: &str, problems: &mut Problems) {
    for (index, scope) in scopes.iter().enumerate() {
        if !known.contains(scope) {
            problems
                .add(format!("{path}[{index}]"), format!("{} is not one of platform.scopes", quoted(scope)));
        }
    }
}
