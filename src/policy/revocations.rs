//! Section `revocations`, and routes that revoke: keys and tokens that end before they expire.

use super::accept::Accept;
use super::api_keys::check_unix_seconds;
use super::definitions::Definitions;
use super::reader::{List, Reader, document, words};
use crate::store::{Revocation, Revocations, Subject};

document! {
    /// One revocation: exactly one of `key`, `token`, `tokens_of_key` and `tokens_of_team`.
    pub struct RevocationDocument {
        /// An API key and all its tokens, by the key's id.
        key: Option<String>,
        /// One token, by its `jti`.
        token: Option<String>,
        /// Tokens of a key, by the key's id.
        tokens_of_key: Option<String>,
        /// Tokens of a team's keys, and of all below it.
        tokens_of_team: Option<String>,
        /// Unix second; tokens issued then or earlier are revoked; with `tokens_of_key` and `tokens_of_team`.
        before: Option<u64>,
    }
}

document! {
    /// A route that revokes what its body names.
    pub struct RevokeDocument {
        /// Reach of the route; default `own`.
        reach: ReachWord = ReachWord::Own,
    }
}

words! {
    /// Reach of a route that revokes.
    pub enum ReachWord {
        /// Keys and tokens within reach of the caller's team.
        Own = "own",
        /// Every key and token.
        Platform = "platform",
    }
}

/// Compiled route that revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokeRule {
    /// True when every key and token may be revoked, not only those within reach of the key's team.
    pub reaches_everything: bool,
}

/// Compiles the revocations of the policy. With a directory a key may exist outside the policy.
pub(super) fn compile(
    documents: &List<RevocationDocument>,
    definitions: &Definitions<'_>,
    has_directory: bool,
    at: &Reader<'_>,
) -> Revocations {
    let mut list = Revocations::default();
    for (at, document) in documents.each(at) {
        document.check(definitions, has_directory, &at);
        if let Some(subject) = document.subject(&at) {
            list.add(Revocation { subject, by: None, before: document.before.unwrap_or(0) });
        }
    }
    list
}

impl RevocationDocument {
    fn subject(&self, at: &Reader<'_>) -> Option<Subject> {
        let named = [
            ("key", self.key.clone().map(Subject::Key)),
            ("token", self.token.clone().map(Subject::Token)),
            ("tokens_of_key", self.tokens_of_key.clone().map(Subject::TokensOfKey)),
            ("tokens_of_team", self.tokens_of_team.clone().map(Subject::TokensOfTeam)),
        ];
        let mut subjects = named.into_iter().filter_map(|(name, subject)| Some((name, subject?)));
        let (Some((name, subject)), None) = (subjects.next(), subjects.next()) else {
            at.refuse("expected exactly one of `key`, `token`, `tokens_of_key` and `tokens_of_team`");
            return None;
        };
        let (_, id) = subject.parts();
        if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            at.member(name).refuse_with(
                "an id is 1 to 128 visible characters",
                "a token is named by its `jti`, never by its text",
            );
        }
        Some(subject)
    }

    /// Checks that the key or team exists, and that `before` is given where it is needed.
    fn check(&self, definitions: &Definitions<'_>, has_directory: bool, at: &Reader<'_>) {
        for (name, id) in [("key", &self.key), ("tokens_of_key", &self.tokens_of_key)] {
            if let Some(id) = id.as_ref().filter(|_| !has_directory) {
                at.member(name).check_listed(id, "api_keys", definitions.key_ids.iter().copied());
            }
        }
        if let Some(id) = &self.tokens_of_team {
            at.member("tokens_of_team").check_listed(id, "teams", definitions.tree.team_ids());
        }
        let needs_instant = self.tokens_of_key.is_some() || self.tokens_of_team.is_some();
        let at = at.member("before");
        if needs_instant {
            check_unix_seconds(self.before, &at);
        }
        if needs_instant != self.before.is_some() {
            at.refuse(
                "`tokens_of_key` and `tokens_of_team` need the Unix second `before`; nothing else has one",
            );
        }
    }
}

impl RevokeDocument {
    pub(super) fn compile(&self, accept: &Accept, scopes: &[String], at: &Reader<'_>) -> RevokeRule {
        accept.check_only_api_keys("revoke", at);
        // Without a scope, every key that leaks could end all the others.
        if scopes.is_empty() {
            at.refuse("a route that revokes needs a scope: name it in `scopes`");
        }
        RevokeRule { reaches_everything: self.reach == ReachWord::Platform }
    }
}
