//! Secrets by reference: read from the gateway's environment, derived from a master, or, if allowed, in the policy.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::reader::{Reader, document};
use crate::credential::{Algorithm, KeyError, decode_base64url, derive_secret};

document! {
    /// Source of a secret, in unpadded base64url: exactly one of its members.
    pub struct SecretDocument {
        /// Environment variable that holds it.
        env: Option<String>,
        /// Master from which it is derived by HKDF-SHA256 with family and kid.
        derive: Option<MasterDocument>,
        /// The secret itself; only with `allow_inline_secrets`.
        inline: Option<String>,
    }
}

document! {
    /// Source of a master secret in unpadded base64url, or of a credential as it is: exactly one of its members.
    pub struct MasterDocument {
        /// Environment variable that holds it.
        env: Option<String>,
        /// The text itself; only with `allow_inline_secrets`.
        inline: Option<String>,
    }
}

/// Access to the secrets a policy refers to.
pub enum Secrets<'a> {
    /// Looks up an environment variable.
    Lookup(&'a dyn Fn(&str) -> Option<String>),
    /// Leaves them out: the policy is checked but can neither mint nor verify with them.
    Unchecked,
}

/// Purpose of a secret: a derived one differs for each.
pub(super) struct Purpose<'a> {
    /// Token family, or a use of our own that no family can have as its name.
    pub(super) used_for: &'a str,
    /// Key id, or a name of our own.
    pub(super) kid: &'a str,
    /// Algorithm the secret is for.
    pub(super) algorithm: Algorithm,
}

/// Loads the secrets of one policy and notes the environment variables it names.
pub(super) struct SecretLoader<'a> {
    secrets: &'a Secrets<'a>,
    allows_inline: bool,
    names: RefCell<BTreeSet<String>>,
}

impl<'a> SecretLoader<'a> {
    pub(super) fn new(secrets: &'a Secrets<'a>, allows_inline: bool) -> Self {
        Self { secrets, allows_inline, names: RefCell::default() }
    }

    /// Returns the environment variables that were named, sorted.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names.into_inner().into_iter().collect()
    }

    /// Loads or derives a secret; `None` when it is wrong, or when secrets are left out.
    pub(super) fn load(
        &self,
        secret: &SecretDocument,
        purpose: &Purpose<'_>,
        at: &Reader<'_>,
    ) -> Option<Vec<u8>> {
        match (&secret.env, &secret.derive, &secret.inline) {
            (Some(name), None, None) => self.env(name, &at.member("env")),
            (None, Some(master), None) => self.derive(master, purpose, &at.member("derive")),
            (None, None, Some(text)) => self.inline(text, &at.member("inline")),
            _ => {
                at.refuse("expected exactly one of `env`, `derive` and `inline`");
                None
            }
        }
    }

    fn derive(&self, master: &MasterDocument, purpose: &Purpose<'_>, at: &Reader<'_>) -> Option<Vec<u8>> {
        let master = match (&master.env, &master.inline) {
            (Some(name), None) => self.env(name, &at.member("env")),
            (None, Some(text)) => self.inline(text, &at.member("inline")),
            _ => {
                at.refuse("expected exactly one of `env` and `inline`");
                None
            }
        };
        let Purpose { used_for, kid, algorithm } = *purpose;
        report(derive_secret(&master?, used_for, kid, algorithm), at).map(|bytes| bytes.to_vec())
    }

    /// Loads a text that is used as it is; `None` when it is wrong, or when secrets are left out.
    pub(super) fn load_text(&self, secret: &MasterDocument, at: &Reader<'_>) -> Option<String> {
        match (&secret.env, &secret.inline) {
            (Some(name), None) => self.lookup(name, "", &at.member("env")),
            (None, Some(text)) => self.check_inline(&at.member("inline")).then(|| text.clone()),
            _ => {
                at.refuse("expected exactly one of `env` and `inline`");
                None
            }
        }
    }

    fn env(&self, name: &str, at: &Reader<'_>) -> Option<Vec<u8>> {
        let encoded = self.lookup(name, "; make a secret with `callbound gen-secret`", at)?;
        let decoded = decode_base64url(&encoded);
        decoded.map_err(|error| at.refuse(format!("`{name}`: {error}"))).ok()
    }

    fn inline(&self, encoded: &str, at: &Reader<'_>) -> Option<Vec<u8>> {
        self.check_inline(at).then(|| report(decode_base64url(encoded), at)).flatten()
    }

    fn check_inline(&self, at: &Reader<'_>) -> bool {
        match self.allows_inline {
            true => at.warn("a secret in the policy itself shows in the gateway's config dumps"),
            false => at.refuse_with(
                "a secret in the policy needs `allow_inline_secrets: true`",
                "better name an environment variable, as in `{\"env\": \"CALLBOUND_MASTER\"}`",
            ),
        }
        self.allows_inline
    }

    fn lookup(&self, name: &str, advice: &str, at: &Reader<'_>) -> Option<String> {
        // A secret in the place of its name must not be printed as a name.
        let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            at.refuse("expected the name of an environment variable, as in `CALLBOUND_MASTER`");
            return None;
        }
        self.names.borrow_mut().insert(name.to_owned());
        let Secrets::Lookup(lookup) = self.secrets else { return None };
        let text = lookup(name);
        if text.is_none() {
            at.refuse(format!("the environment variable `{name}` is not set{advice}"));
        }
        text.map(|text| text.trim().to_owned())
    }
}

fn report<T>(result: Result<T, KeyError>, at: &Reader<'_>) -> Option<T> {
    result.map_err(|error| at.refuse(error.to_string())).ok()
}
