//! The sections that say what the platform is: features, scopes, credential shapes, refusals.

use super::super::Platform;
use super::super::config::{
    AlphabetConfig, CredentialsConfig, PlatformConfig, PremiumConfig, ReasonConfig, RefusalsConfig,
};
use super::super::error::Problems;
use super::super::refusal::{ENVELOPE_NAMES, Override, Refusals};
use super::super::template::Template;
use super::keyring::CompiledFamily;
use super::{Document, check_id, check_scope};
use crate::credential::{Alphabet, Carrier, KeyShape};
use crate::reason::Reason;

pub(super) fn platform(
    document: &Document<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Platform {
    let config: PlatformConfig = document.section("platform", problems).unwrap_or_default();
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
    Platform {
        features,
        scopes: config.scopes,
        premium_for_keys: config.premium_for_api_keys == PremiumConfig::Allow,
    }
}

/// Where credentials stand and how keys are written.
pub(super) struct Credentials {
    pub(super) carriers: Vec<Carrier>,
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
        check_prefix(&shape.prefix, &format!("{path}.prefix"), problems);
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
    let carriers = config.from.iter().enumerate().map(|(index, from)| {
        let path = format!("credentials.from[{index}]");
        check_header_name(&from.header, &format!("{path}.header"), problems);
        if from.scheme.as_ref().is_some_and(|scheme| !is_token(scheme)) {
            problems.add(format!("{path}.scheme"), "expected one word, as in `Bearer`");
        }
        if config.from.iter().take(index).any(|other| other.header == from.header) {
            problems.add(format!("{path}.header"), "this header stands here already");
        }
        Carrier { header: from.header.clone(), scheme: from.scheme.clone() }
    });
    let carriers = carriers.collect();
    Some(Credentials { carriers, shapes, forward: config.forward })
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
            if prefix.starts_with(other.as_str()) || other.starts_with(prefix.as_str()) {
                problems.add("credentials", format!("the prefixes `{other}` and `{prefix}` begin alike"));
            }
        }
    }
    prefixes
}

pub(super) fn hold_seconds(document: &Document<'_>, problems: &mut Problems) -> u64 {
    let seconds = document.section("hold_seconds", problems).unwrap_or(10);
    if !(1..=300).contains(&seconds) {
        problems.add("hold_seconds", "expected 1 to 300 seconds");
    }
    seconds
}

pub(super) fn refusals(document: &Document<'_>, problems: &mut Problems) -> Option<Refusals> {
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
    let codes = config.codes.0.iter().filter_map(|(status, code)| match status.parse::<u16>() {
        Ok(status) if (400..600).contains(&status) => Some((status, code.clone())),
        _ => {
            problems.add(format!("refusals.codes.{status}"), "expected a status from 400 to 599");
            None
        }
    });
    let codes = codes.collect();
    let overrides =
        config.reasons.0.into_iter().filter_map(|(code, changed)| override_of(&code, changed, problems));
    let overrides = overrides.collect();
    let envelope = Template::compile(config.envelope, ENVELOPE_NAMES)
        .map_err(|message| problems.add("refusals.envelope", message))
        .ok()?;
    Some(Refusals {
        envelope,
        realm: config.realm,
        resource_metadata: config.resource_metadata,
        codes,
        overrides,
    })
}

fn override_of(code: &str, changed: ReasonConfig, problems: &mut Problems) -> Option<(Reason, Override)> {
    let Some(reason) = Reason::from_code(code) else {
        problems.add(format!("refusals.reasons.{code}"), "no such reason; `callbound reasons` lists them");
        return None;
    };
    if changed.status.is_some_and(|status| !(400..600).contains(&status)) {
        problems.add(format!("refusals.reasons.{code}.status"), "expected a status from 400 to 599");
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
    "trailer",
    "transfer-encoding",
    "content-type",
    "content-length",
    "content-encoding",
    "x-request-id",
];

fn check_header_name(name: &str, path: &str, problems: &mut Problems) {
    if name != name.to_ascii_lowercase() || !is_token(name) {
        problems.add(path, "expected a header name in lower case");
    } else if name.starts_with("x-callbound-") || UNFIT_CARRIERS.contains(&name) {
        problems.add(path, "this header cannot carry a credential");
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
