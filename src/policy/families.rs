//! Section `tokens`: the families of tokens that are minted here.

use std::rc::Rc;

use super::counting::{MAX_SESSION_SECONDS, MAX_USES, StrengthWord};
use super::ids::{check_id, check_prefix, check_scopes};
use super::reader::{List, Members, Reader, document};
use super::secrets::SecretLoader;
use super::token_keys::{TokenKeyDocument, check_all};
use crate::credential::{Algorithm, Clock, Family, FamilyKeys, Ttl};

document! {
    /// One family of tokens that are minted here.
    pub struct FamilyDocument {
        /// Beginning of each token: 3 to 32 of `A-Z a-z 0-9 - _`.
        prefix: String,
        /// True when a token is also accepted without its prefix, as a plain JWT; default false.
        bare: bool = false,
        /// The `typ` header of the tokens; default the family's name and `+jwt`.
        typ: Option<String>,
        /// The `iss` claim of the tokens.
        issuer: String,
        /// The `aud` claim of the tokens; when it is given, required in every token.
        audience: Option<String>,
        /// Lifetimes a token may have.
        ttl_seconds: LifetimesDocument,
        /// Tolerated difference between clocks.
        clock: ClockDocument = ClockDocument::default(),
        /// Scopes of a token whose mint request names none.
        default_scopes: List<String> = List::default(),
        /// The only scopes a token may carry; absent: any its key holds.
        mintable_scopes: Option<List<String>>,
        /// Number of times a token may be used.
        uses: AllowanceDocument = AllowanceDocument::default(),
        /// Seconds that all sessions of a token may last together.
        total_seconds: AllowanceDocument = AllowanceDocument::default(),
    }
}

document! {
    /// Lifetimes in seconds.
    pub struct LifetimesDocument {
        /// The shortest that a mint request may name, at least 1.
        min: u64,
        /// The longest that a mint request may name and that is accepted, at most 86,400.
        max: u64,
        /// Lifetime of a token whose mint request names none.
        default: u64,
    }
}

document! {
    /// Tolerated difference between clocks, in seconds.
    pub struct ClockDocument {
        /// Seconds a token is accepted after `exp`, 0 to 5; default 0.
        leeway_seconds: u64 = 0,
        /// Seconds `iat` may be ahead, 0 to 60; default 30.
        ahead_seconds: u64 = 30,
    }
}

document! {
    /// A number that each token is given.
    pub struct AllowanceDocument {
        /// Number of a token whose mint request names none; absent: it is not counted.
        default: Option<u64>,
        /// Reach of the count; default `node`.
        strength: StrengthWord = StrengthWord::Node,
    }
}

impl ClockDocument {
    pub(super) fn compile(&self, at: &Reader<'_>) -> Clock {
        at.member("leeway_seconds").check_range(self.leeway_seconds, 0..=5, "seconds");
        at.member("ahead_seconds").check_range(self.ahead_seconds, 0..=60, "seconds");
        Clock { leeway: self.leeway_seconds, ahead: self.ahead_seconds }
    }
}

/// A family with what only its mint routes need.
pub(super) struct CompiledFamily<'d> {
    pub(super) family: Rc<Family>,
    pub(super) document: &'d FamilyDocument,
    pub(super) can_sign: bool,
    pub(super) has_public_key: bool,
}

/// Compiles the families with the keys that sign and verify their tokens.
pub(super) fn compile<'d>(
    families: &'d Members<FamilyDocument>,
    keys: &List<TokenKeyDocument>,
    loader: &SecretLoader<'_>,
    root: &Reader<'_>,
) -> Vec<CompiledFamily<'d>> {
    let (at, keys_at) = (root.member("tokens"), root.member("token_keys"));
    check_all(keys, &families.names().collect::<Vec<_>>(), &keys_at);
    let mut compiled: Vec<CompiledFamily<'d>> = Vec::new();
    for (name, document) in families.iter() {
        let at = at.member(name);
        check_family_name(name, &at);
        let family = document.family(name, &at);
        check_type(&family, &compiled, &at.member("typ"));
        compiled.push(document.with_keys(family, keys, loader, (&at, &keys_at)));
    }
    compiled
}

/// Checks the name of a family or issuer, which `accept` refers to.
pub(super) fn check_family_name(name: &str, at: &Reader<'_>) {
    check_id(name, at);
    if matches!(name, "api_key" | "public") {
        at.refuse("this name has a meaning of its own in `accept`");
    }
}

/// Checks `typ`, which separates families that share a key: otherwise the prefix of a token could be exchanged.
fn check_type(family: &Family, others: &[CompiledFamily<'_>], at: &Reader<'_>) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
    if family.typ.is_empty() || !family.typ.bytes().all(fits) {
        at.refuse("expected one word, as in `rdc+jwt`");
    }
    let is_same = |other: &&CompiledFamily<'_>| other.family.typ.eq_ignore_ascii_case(&family.typ);
    if let Some(other) = others.iter().find(is_same) {
        at.refuse(format!("tokens.{} has the same", other.family.name));
    }
}

impl FamilyDocument {
    fn family(&self, name: &str, at: &Reader<'_>) -> Family {
        check_prefix(&self.prefix, &at.member("prefix"));
        let LifetimesDocument { min, max, default } = self.ttl_seconds;
        if min == 0 || min > default || default > max || max > 86_400 {
            at.member("ttl_seconds").refuse("expected 1 <= min <= default <= max <= 86400 seconds");
        }
        check_not_empty(&self.issuer, &at.member("issuer"));
        check_not_empty(self.audience.as_deref().unwrap_or("none"), &at.member("audience"));
        self.check_allowances(at);
        Family {
            name: name.to_owned(),
            prefix: self.prefix.clone(),
            typ: self.typ.clone().unwrap_or_else(|| format!("{name}+jwt")),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            ttl: Ttl { min, max, default },
            clock: self.clock.compile(&at.member("clock")),
            is_bare: self.bare,
            mintable_scopes: self.mintable_scopes.as_deref().map(<[String]>::to_vec),
            keys: FamilyKeys::default(),
        }
    }

    fn check_allowances(&self, at: &Reader<'_>) {
        if let Some(uses) = self.uses.default {
            at.member("uses").member("default").check_range(uses, 1..=MAX_USES, "");
        }
        if let Some(total) = self.total_seconds.default {
            at.member("total_seconds").member("default").check_range(
                total,
                1..=MAX_SESSION_SECONDS,
                "seconds",
            );
        }
    }

    fn with_keys<'d>(
        &'d self,
        mut family: Family,
        keys: &List<TokenKeyDocument>,
        loader: &SecretLoader<'_>,
        (at, keys_at): (&Reader<'_>, &Reader<'_>),
    ) -> CompiledFamily<'d> {
        let own = || keys.iter().filter(|key| key.is_for(&family.name));
        let signing = own().filter(|key| key.sign).count();
        let has_public_key = own().any(|key| Algorithm::from(key.alg) != Algorithm::Hs256);
        // A key that could not be read may be the one that is missing.
        let is_complete = keys_at.was_read() && !keys_at.has_error();
        if signing > 1 {
            at.refuse("more than one of its `token_keys` has `sign: true`");
        }
        if own().next().is_none() && is_complete {
            at.refuse("no key of `token_keys` is for this family");
        }
        for (key_at, key) in keys.each(keys_at) {
            if !key.is_for(&family.name) {
                continue;
            }
            if let Some(loaded) = key.load(&family.name, loader, &key_at) {
                family.add_key(&key.kid, Rc::new(loaded), key.sign);
            }
        }
        let can_sign = signing > 0 || !is_complete;
        CompiledFamily {
            family: Rc::new(family),
            document: self,
            can_sign,
            has_public_key: has_public_key || !is_complete,
        }
    }

    /// Checks the scopes of the family's tokens.
    pub(super) fn check_scopes(&self, scopes: &[String], at: &Reader<'_>) {
        check_scopes(&self.default_scopes, scopes, &at.member("default_scopes"));
        if let Some(mintable) = &self.mintable_scopes {
            check_scopes(mintable, scopes, &at.member("mintable_scopes"));
        }
    }
}

/// Checks that a text is not empty.
pub(super) fn check_not_empty(text: &str, at: &Reader<'_>) {
    if text.is_empty() {
        at.refuse("expected a text that is not empty");
    }
}
