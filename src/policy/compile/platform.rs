//! The sections that say what the platform is: features, scopes, credential shapes, refusals.

use std::collections::HashMap;

use super::super::Platform;
use super::super::bound::TextBound;
use super::super::config::{
    AlphabetConfig, CarrierConfig, CredentialsConfig, GroupConfig, Members, PlatformConfig, PremiumConfig,
    Raw, ReasonConfig, RefusalsConfig,
};
use super::super::error::Problems;
use super::super::refusal::{ENVELOPE_NAMES, Override, RefusalFormat, Refusals};
use super::super::template::Template;
use super::bounds::text_bounds;
use super::keyring::CompiledFamily;
use super::{Document, check_id, check_scope, quoted};
use crate::credential::{Alphabet, CredentialLocation, KeyShape};
use crate::reason::Reason;

pub(super) fn platform(
    document: &Document<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> (Platform, Vec<TextBound>) {
    let config: PlatformConfig = document.section("platform", problems).unwrap_or_default();
    let bounds = text_bounds(document, config.bounds, problems);
    let mut features = config.features.0;
    for (index, scope) in config.scopes.iter().enumerate() {
        check_scope(scope, &format!("platform.scopes[{index}]"), problems);
    }
    for (name, _) in &features {
        check_id(name, &format!("platform.features.{name}"), problems);
    }
    for name in document.features_of_routes() {
        if !features.iter().any(|(known, _)| known == name) {
            warnings.push(format!(
                "platform.features: routes need `{name}`, which is not there: off for everybody"
            ));
            features.push((name.to_owned(), false));
        }
    }
    let is_feature = |name: &str| features.iter().any(|(known, _)| known == name);
    check_graph("platform.requires", &config.requires.0, is_feature, "features", problems);
    let is_scope = |name: &str| config.scopes.iter().any(|known| known == name);
    check_graph("platform.implies", &config.implies.0, is_scope, "scopes", problems);
    let platform = Platform {
        implied_by: turned_round(&config.implies.0),
        features,
        requires: config.requires.0,
        scopes: config.scopes,
        premium_for_keys: config.premium_for_api_keys == PremiumConfig::Allow,
    };
    (platform, bounds)
}

/// Both ends of every arrow must be there: a misspelt one would open or close nothing.
fn check_graph(
    path: &str,
    arrows: &[(String, Vec<String>)],
    is_known: impl Fn(&str) -> bool,
    what: &str,
    problems: &mut Problems,
) {
    for (from, to) in arrows {
        for name in std::iter::once(from).chain(to).filter(|name| !is_known(name)) {
            problems.add(format!("{path}.{from}"), format!("{} is not one of platform.{what}", quoted(name)));
        }
    }
}

/// Everything that can be reached along arrows, the start included.
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

/// For every scope that others imply, those others.
fn turned_round(implies: &[(String, Vec<String>)]) -> Vec<(String, Vec<String>)> {
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

/// Where credentials stand and how keys are written.
pub(super) struct Credentials {
    pub(super) carriers: Vec<CredentialLocation>,
    pub(super) shapes: Vec<KeyShape>,
    pub(super) forward: bool,
}

pub(super) fn credentials(document: &Document<'_>, problems: &mut Problems) -> Option<Credentials> {
    let hint = "say how API keys are written and where credentials stand";
    let config: CredentialsConfig = document.required("credentials", hint, problems)?;
    let shapes = config.api_keys.iter().enumerate().map(|(index, shape)| {
        let path = format!("credentials.api_keys[{index}]");
        if shape.length.min < 16 || shape.length.max < shape.length.min || shape.length.max > 512 {
            problems.add(format!("{path}.length"), "expected 16 <= min <= max <= 512 characters");
        }
        // Keys of some platforms have no mark of their own; the shape of one may then be length and alphabet alone.
        if !shape.prefix.is_empty() {
            check_prefix(&shape.prefix, &format!("{path}.prefix"), problems);
        }
        KeyShape {
            prefix: shape.prefix.clone(),
            alphabet: match shape.alphabet {
                AlphabetConfig::Hex => Alphabet::Hex,
                AlphabetConfig::Alphanumeric => Alphabet::Alphanumeric,
                AlphabetConfig::Base64url => Alphabet::Base64Url,
            },
            min: shape.length.min,
            max: shape.length.max,
        }
    });
    let shapes = shapes.collect();
    if config.from.is_empty() {
        problems.add("credentials.from", "name at least one header");
    }
    if config.from.iter().any(|from| from.query.is_some()) {
        problems.add(
            "credentials.from",
            "a credential in the query is for single routes: name it in `routes[].credential_from`",
        );
    }
    let carriers = carriers(&config.from, "credentials.from", problems);
    Some(Credentials { carriers, shapes, forward: config.forward })
}

/// Reads where credentials stand.
pub(super) fn carriers(
    list: &[CarrierConfig],
    path: &str,
    problems: &mut Problems,
) -> Vec<CredentialLocation> {
    let mut carriers: Vec<CredentialLocation> = Vec::new();
    for (index, from) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let carrier = match (&from.header, &from.query) {
            (Some(name), None) => {
                check_header_name(name, &format!("{path}.header"), problems);
                if from.scheme.as_ref().is_some_and(|scheme| !is_token(scheme)) {
                    problems.add(format!("{path}.scheme"), "expected one word, as in `Bearer`");
                }
                if carriers.iter().any(|other| other.header() == Some(name)) {
                    problems.add(format!("{path}.header"), "this header stands here already");
                }
                CredentialLocation::Header { name: name.clone(), scheme: from.scheme.clone() }
            }
            (None, Some(name)) if from.scheme.is_none() && is_token(name) => {
                if carriers.iter().any(|other| other.parameter() == Some(name)) {
                    problems.add(format!("{path}.query"), "this parameter stands here already");
                }
                CredentialLocation::Query { name: name.clone() }
            }
            _ => {
                problems.add(path, "expected `header`, perhaps with `scheme`, or `query`");
                continue;
            }
        };
        carriers.push(carrier);
    }
    carriers
}

/// Collects all prefixes; one that begins another would make a credential two things at once.
pub(super) fn prefixes(
    credentials: &Option<Credentials>,
    families: &[CompiledFamily],
    problems: &mut Problems,
) -> Vec<String> {
    let shapes = credentials.iter().flat_map(|credentials| &credentials.shapes).map(|shape| &shape.prefix);
    let prefixes: Vec<String> =
        shapes.chain(families.iter().map(|family| &family.family.prefix)).cloned().collect();
    for (index, prefix) in prefixes.iter().enumerate() {
        for other in prefixes.iter().take(index) {
            if prefix.is_empty() != other.is_empty() {
                continue;
            }
            if prefix.starts_with(other.as_str()) || other.starts_with(prefix.as_str()) {
                problems.add("credentials", format!("the prefixes `{other}` and `{prefix}` begin alike"));
            }
        }
    }
    // A bare token is known by the header that only this family's keys write.
    let bare = families.iter().filter(|family| family.family.is_bare);
    let headers = bare.flat_map(|family| family.family.headers().map(|header| format!("{header}.")));
    prefixes.into_iter().filter(|prefix| !prefix.is_empty()).chain(headers).collect()
}

pub(super) fn hold_seconds(document: &Document<'_>, problems: &mut Problems) -> u64 {
    let seconds = document.section("hold_seconds", problems).unwrap_or(10);
    if !(1..=300).contains(&seconds) {
        problems.add("hold_seconds", "expected 1 to 300 seconds");
    }
    seconds
}

/// The wordings, and the names of their groups.
pub(super) fn refusals(document: &Document<'_>, problems: &mut Problems) -> Option<(Refusals, Vec<String>)> {
    let config: RefusalsConfig =
        document.required("refusals", "say at least `realm` and `envelope`", problems)?;
    let is_quotable = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'"' | b'\\'))
    };
    if !is_quotable(&config.realm) {
        problems.add("refusals.realm", "expected visible ASCII without quotes");
    }
    if config.resource_metadata.as_deref().is_some_and(|url| !is_quotable(url) || url.contains(' ')) {
        problems.add("refusals.resource_metadata", "expected a URL");
    }
    let own = GroupConfig {
        envelope: Some(config.envelope),
        envelopes: config.envelopes,
        codes: config.codes,
        reasons: config.reasons,
    };
    let default = style(&own, "refusals", problems);
    let (mut groups, mut names) = (Vec::new(), Vec::new());
    for (name, group) in config.groups.0 {
        let path = format!("refusals.groups.{name}");
        check_id(&name, &path, problems);
        groups.extend(style(&over(&own, group), &path, problems));
        names.push(name);
    }
    let (realm, resource_metadata) = (config.realm, config.resource_metadata);
    Some((Refusals { realm, resource_metadata, default: default?, groups }, names))
}

/// A group with what it leaves out filled from the default; an envelope of its own is for every status it does not
/// except itself.
fn over(default: &GroupConfig, group: GroupConfig) -> GroupConfig {
    fn merged<T: Clone>(default: &Members<T>, own: Members<T>) -> Members<T> {
        let missing = default.0.iter().filter(|(name, _)| !own.0.iter().any(|(other, _)| other == name));
        Members(missing.cloned().chain(own.0.iter().cloned()).collect())
    }
    GroupConfig {
        envelopes: match group.envelope {
            Some(_) => group.envelopes,
            None => merged(&default.envelopes, group.envelopes),
        },
        envelope: group.envelope.or_else(|| default.envelope.clone()),
        codes: merged(&default.codes, group.codes),
        reasons: merged(&default.reasons, group.reasons),
    }
}

fn style(config: &GroupConfig, path: &str, problems: &mut Problems) -> Option<RefusalFormat> {
    let template = |raw: &Raw, path: String, problems: &mut Problems| {
        Template::compile(raw.0.clone(), ENVELOPE_NAMES).map_err(|message| problems.add(path, message)).ok()
    };
    let envelope =
        config.envelope.as_ref().and_then(|raw| template(raw, format!("{path}.envelope"), problems));
    let mut by_status = HashMap::new();
    for (status, raw) in &config.envelopes.0 {
        let envelope = template(raw, format!("{path}.envelopes.{status}"), problems);
        by_status.extend(read_status(status, &format!("{path}.envelopes"), problems).zip(envelope));
    }
    let codes = config.codes.0.iter();
    let codes = codes
        .filter_map(|(status, code)| {
            Some((read_status(status, &format!("{path}.codes"), problems)?, code.clone()))
        })
        .collect();
    let overrides = config.reasons.0.iter();
    let overrides =
        overrides.filter_map(|(code, changed)| override_of(code, changed.clone(), path, problems)).collect();
    Some(RefusalFormat { envelope: envelope?, envelopes: by_status, codes, overrides })
}

fn read_status(text: &str, path: &str, problems: &mut Problems) -> Option<u16> {
    let status = text.parse().ok().filter(|status| (400..600).contains(status));
    if status.is_none() {
        problems.add(format!("{path}.{text}"), "expected a status from 400 to 599");
    }
    status
}

fn override_of(
    code: &str,
    changed: ReasonConfig,
    path: &str,
    problems: &mut Problems,
) -> Option<(Reason, Override)> {
    let Some(reason) = Reason::from_code(code) else {
        problems.add(format!("{path}.reasons.{code}"), "no such reason; `callbound reasons` lists them");
        return None;
    };
    if changed.status.is_some_and(|status| !(400..600).contains(&status)) {
        problems.add(format!("{path}.reasons.{code}.status"), "expected a status from 400 to 599");
    }
    Some((reason, Override { status: changed.status, code: changed.code, message: changed.message }))
}

pub(super) fn check_prefix(prefix: &str, path: &str, problems: &mut Problems) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if prefix.len() < 3 || prefix.len() > 32 || !prefix.bytes().all(fits) {
        problems.add(path, "a prefix is 3 to 32 of `A-Z a-z 0-9 - _`");
    }
}

/// Headers that are read for something else, logged, or changed on the way.
const UNFIT_CARRIERS: &[&str] = &[
    "host",
    "cookie",
    "connection",
    "upgrade",
    "te",
    "keep-alive",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
    "content-type",
    "content-length",
    "content-encoding",
    "x-request-id",
];

pub(super) fn check_header_name(name: &str, path: &str, problems: &mut Problems) {
    if name != name.to_ascii_lowercase() || !is_token(name) {
        problems.add(path, "expected a header name in lower case");
    } else if name.starts_with("x-callbound-")
        || name.starts_with("x-envoy-")
        || UNFIT_CARRIERS.contains(&name)
    {
        problems.add(path, "this header cannot carry a credential");
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
