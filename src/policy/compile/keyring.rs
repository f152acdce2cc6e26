//! The keyring and the token families: which key signs and verifies what.

use std::rc::Rc;

use super::super::config::{
    ClockConfig, FamilyConfig, KeyConfig, MasterConfig, SecretConfig, TotalConfig, UsesConfig,
};
use super::super::error::Problems;
use super::platform::check_prefix;
use super::{Document, Secrets, check_id, section};
use crate::credential::{Algorithm, Clock, Family, Key, KeyError, Ttl, decode_base64url, derive_secret};
use crate::json::Json;

/// A family with what only its mint routes need.
pub(super) struct CompiledFamily {
    pub(super) family: Family,
    pub(super) default_scopes: Vec<String>,
    pub(super) mintable_scopes: Option<Vec<String>>,
    pub(super) uses: UsesConfig,
    pub(super) total: TotalConfig,
    pub(super) can_sign: bool,
    pub(super) has_public_key: bool,
}

pub(super) fn families(
    document: &Document<'_>,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Vec<CompiledFamily> {
    let keys = keys(document, document.allows_inline_secrets(), problems);
    if keys.iter().any(|(_, key)| is_inline(key)) {
        warnings.push(
            "keyring: a secret stands in the policy itself and shows in the gateway's config dumps".into(),
        );
    }
    let mut families = Vec::new();
    let tokens = document.0.get("tokens");
    if tokens.is_some_and(|tokens| tokens.members().is_none()) {
        problems.add("tokens", "expected an object of families");
    }
    let own = tokens.and_then(Json::members).unwrap_or_default().iter();
    for (name, raw) in own.filter(|(_, raw)| raw.get("external").is_none()) {
        let path = format!("tokens.{name}");
        check_family_name(name, &path, problems);
        let Some(config) = section::<FamilyConfig>(raw, &path, problems) else { continue };
        families.push(family(name, config, &path, &keys, secrets, problems));
    }
    check_types(&families, problems);
    for (path, key) in &keys {
        let names = key.families.iter().flatten().enumerate();
        for (index, name) in names.filter(|(_, name)| !families.iter().any(|f| f.family.name == **name)) {
            problems.add(format!("{path}.families[{index}]"), format!("`{name}` is not one of tokens"));
        }
    }
    families
}

pub(super) fn check_family_name(name: &str, path: &str, problems: &mut Problems) {
    check_id(name, path, problems);
    if matches!(name, "api_key" | "public") {
        problems.add(path, "this name has a meaning of its own in `accept`");
    }
}

/// `typ` keeps families apart that share a key: without it a token's prefix could be exchanged.
fn check_types(families: &[CompiledFamily], problems: &mut Problems) {
    for (index, CompiledFamily { family, .. }) in families.iter().enumerate() {
        let path = format!("tokens.{}.typ", family.name);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
        if family.typ.is_empty() || !family.typ.bytes().all(fits) {
            problems.add(&path, "expected one word, as in `rdc+jwt`");
        }
        let alike = |other: &&CompiledFamily| other.family.typ.eq_ignore_ascii_case(&family.typ);
        if let Some(other) = families.iter().take(index).find(alike) {
            problems.add(&path, format!("tokens.{} has the same", other.family.name));
        }
    }
}

fn keys(document: &Document<'_>, allow_inline: bool, problems: &mut Problems) -> Vec<(String, KeyConfig)> {
    let mut keys: Vec<(String, KeyConfig)> = Vec::new();
    for (path, key) in document.elements::<KeyConfig>("keyring", problems) {
        check_id(&key.kid, &format!("{path}.kid"), problems);
        if keys.iter().any(|(_, other)| other.kid == key.kid) {
            problems.add(format!("{path}.kid"), format!("`{}` stands in the keyring already", key.kid));
        }
        if key.secret.is_some() == key.jwk.is_some() {
            problems.add(&path, "expected one of `secret` and `jwk`");
        }
        if key.sign && key.jwk.is_some() {
            problems.add(format!("{path}.sign"), "a public key cannot sign");
        }
        if is_inline(&key) && !allow_inline {
            problems.add(format!("{path}.secret"), NO_INLINE);
        }
        keys.push((path, key));
    }
    keys
}

fn is_inline(key: &KeyConfig) -> bool {
    key.secret.as_ref().is_some_and(is_inline_secret)
}

/// What is said of a secret that stands in the policy without leave.
pub(super) const NO_INLINE: &str =
    "a secret in the policy needs `allow_inline_secrets: true`; better `{\"env\": NAME}`";

pub(super) fn is_inline_secret(secret: &SecretConfig) -> bool {
    matches!(secret, SecretConfig::Inline(_) | SecretConfig::Derive(MasterConfig::Inline(_)))
}

fn family(
    name: &str,
    config: FamilyConfig,
    path: &str,
    keys: &[(String, KeyConfig)],
    secrets: &Secrets<'_>,
    problems: &mut Problems,
) -> CompiledFamily {
    check_family(&config, path, problems);
    let typ = config.typ.unwrap_or_else(|| format!("{name}+jwt"));
    let ttl = Ttl { min: config.ttl.min, max: config.ttl.max, default: config.ttl.default };
    let clock = Clock { leeway: config.clock.leeway, ahead: config.clock.ahead };
    let mut family =
        Family::new(name, &config.prefix, &typ, &config.issuer, config.audience.as_deref(), ttl, clock);
    family.is_bare = config.bare;
    let own =
        |key: &KeyConfig| key.families.as_ref().is_none_or(|names| names.iter().any(|other| other == name));
    let mut signing = 0;
    for (key_path, key) in keys.iter().filter(|(_, key)| own(key)) {
        signing += usize::from(key.sign);
        match load(key, name, secrets) {
            Ok(Some(loaded)) => family.add_key(&key.kid, Rc::new(loaded), key.sign),
            Ok(None) => {}
            Err(message) => problems.add(key_path, message),
        }
    }
    if signing > 1 {
        problems.add(path, "more than one key of the keyring has `sign: true`");
    }
    if !keys.iter().any(|(_, key)| own(key)) {
        problems.add(path, "no key of the keyring is for this family");
    }
    CompiledFamily {
        family,
        default_scopes: config.default_scopes,
        mintable_scopes: config.mintable_scopes,
        uses: config.uses,
        total: config.total_seconds,
        can_sign: signing == 1,
        has_public_key: keys.iter().any(|(_, key)| own(key) && key.alg != Algorithm::Hs256),
    }
}

fn check_family(config: &FamilyConfig, path: &str, problems: &mut Problems) {
    check_prefix(&config.prefix, &format!("{path}.prefix"), problems);
    let ttl = &config.ttl;
    if ttl.min == 0 || ttl.min > ttl.default || ttl.default > ttl.max || ttl.max > 86_400 {
        problems.add(format!("{path}.ttl"), "expected 1 <= min <= default <= max <= 86400 seconds");
    }
    check_clock(&config.clock, path, problems);
    if config.issuer.is_empty() || config.audience.as_deref() == Some("") {
        problems.add(path, "`issuer` and `audience` cannot be empty");
    }
    if config.mintable_scopes.as_ref().is_some_and(Vec::is_empty) {
        problems.add(
            format!("{path}.mintable_scopes"),
            "an empty list allows no token; leave it out to allow any held",
        );
    }
}

pub(super) fn check_clock(clock: &ClockConfig, path: &str, problems: &mut Problems) {
    if clock.leeway > 5 {
        problems.add(format!("{path}.clock.leeway"), "expected at most 5 seconds");
    }
    if clock.ahead > 60 {
        problems.add(format!("{path}.clock.ahead"), "expected at most 60 seconds");
    }
}

/// Loads a key for a family; `None` when secrets are not to be looked at.
fn load(config: &KeyConfig, family: &str, secrets: &Secrets<'_>) -> Result<Option<Key>, String> {
    let text = |error: KeyError| error.to_string();
    if let Some(jwk) = &config.jwk {
        return Key::from_jwk(config.alg, jwk).map(Some).map_err(text);
    }
    let Some(secret) = &config.secret else { return Ok(None) };
    let bytes = load_secret(secret, family, &config.kid, config.alg, secrets)?;
    bytes.map(|bytes| Key::from_secret(config.alg, &bytes)).transpose().map_err(text)
}

/// Looks a secret up, or derives it for a use and a kid; `None` when secrets are not to be looked at.
pub(super) fn load_secret(
    secret: &SecretConfig,
    used_for: &str,
    kid: &str,
    algorithm: Algorithm,
    secrets: &Secrets<'_>,
) -> Result<Option<Vec<u8>>, String> {
    let text = |error: KeyError| error.to_string();
    let inline = |encoded: &str| decode_base64url(encoded).map(Some).map_err(text);
    let master = match secret {
        SecretConfig::Env(name) => return from_env(name, secrets),
        SecretConfig::Inline(encoded) => return inline(encoded),
        SecretConfig::Derive(MasterConfig::Env(name)) => from_env(name, secrets)?,
        SecretConfig::Derive(MasterConfig::Inline(encoded)) => inline(encoded)?,
    };
    let Some(master) = master else { return Ok(None) };
    derive_secret(&master, used_for, kid, algorithm).map(|bytes| Some(bytes.to_vec())).map_err(text)
}

fn from_env(name: &str, secrets: &Secrets<'_>) -> Result<Option<Vec<u8>>, String> {
    let advice = "; make a secret with `callbound gen-secret`";
    let Some(encoded) = text_from_env(name, secrets, advice)? else { return Ok(None) };
    let bytes = decode_base64url(&encoded).map_err(|error| format!("`{name}`: {error}"))?;
    Ok(Some(bytes))
}

/// Looks a secret up; `None` when secrets are not to be looked at. `advice` is what to do when it is not set.
pub(super) fn text_from_env(
    name: &str,
    secrets: &Secrets<'_>,
    advice: &str,
) -> Result<Option<String>, String> {
    // A secret that stands where its name belongs must not be printed as a name.
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err("expected the name of an environment variable, as in `CALLBOUND_MASTER`".into());
    }
    let Secrets::Lookup(lookup) = secrets else { return Ok(None) };
    let text = lookup(name).ok_or_else(|| format!("the environment variable `{name}` is not set{advice}"))?;
    Ok(Some(text.trim().to_owned()))
}
