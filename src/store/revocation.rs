//! Revocations of keys and tokens, whether from the policy, from this gateway's memory or from the shared store.
//!
//! Nothing here decides who may revoke what: that is checked before a revocation is added.

use std::collections::HashMap;

/// Seconds after which every revoked token has expired: the longest lifetime and the tolerated clock difference.
pub(super) const LONGEST_TOKEN: u64 = 86_400 + super::KEPT_SECONDS;

/// Object of a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// API key with all its tokens, by id.
    Key(String),
    /// One token, by its `jti`.
    Token(String),
    /// All tokens of a key.
    TokensOfKey(String),
    /// All tokens of a team's keys.
    TokensOfTeam(String),
}

/// One entry of the revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Revoked key or tokens.
    pub subject: Subject,
    /// Team or user that revoked. The id of a token does not name its owner, so the revocation applies only to tokens of
    /// this team or user; `None` applies to all.
    pub by: Option<String>,
    /// Unix seconds; tokens issued then or earlier are revoked.
    pub before: u64,
}

impl Subject {
    /// Returns the kind and the id.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Key(id) => ("key", id),
            Self::Token(id) => ("token", id),
            Self::TokensOfKey(id) => ("tokens_of_key", id),
            Self::TokensOfTeam(id) => ("tokens_of_team", id),
        }
    }

    /// Builds a subject from its kind and id; `None` for an unknown kind.
    pub fn of(kind: &str, id: &str) -> Option<Self> {
        let id = id.to_owned();
        match kind {
            "key" => Some(Self::Key(id)),
            "token" => Some(Self::Token(id)),
            "tokens_of_key" => Some(Self::TokensOfKey(id)),
            "tokens_of_team" => Some(Self::TokensOfTeam(id)),
            _ => None,
        }
    }
}

impl Revocation {
    /// Returns the name the revocation is stored under: one per subject and revoker, so a later one replaces it.
    pub fn name(&self) -> String {
        let (kind, id) = self.subject.parts();
        format!("{kind} {id} {}", self.by.as_deref().unwrap_or("*"))
    }

    /// Reads the form of [`Revocation::name`]; `None` for any other text.
    pub fn read(name: &str, before: u64) -> Option<Self> {
        let words: Vec<&str> = name.split(' ').collect();
        let [kind, id, by] = words.as_slice() else { return None };
        Some(Self { subject: Subject::of(kind, id)?, by: (*by != "*").then(|| (*by).to_owned()), before })
    }

    /// Returns the Unix seconds at which the revocation lapses; `None` when it never does.
    pub fn until(&self) -> Option<u64> {
        match self.subject {
            Subject::Key(_) => None,
            _ => Some(self.before.saturating_add(LONGEST_TOKEN)),
        }
    }
}

/// Revocation list, by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(HashMap<Subject, Vec<(Option<String>, u64)>>);

impl Revocations {
    /// Adds a revocation. For the same subject and revoker the later time counts.
    pub fn add(&mut self, revocation: Revocation) {
        let list = self.0.entry(revocation.subject).or_default();
        match list.iter_mut().find(|(by, _)| *by == revocation.by) {
            Some((_, before)) => *before = revocation.before.max(*before),
            None => list.push((revocation.by, revocation.before)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Revocation> {
        let entries =
            self.0.iter().flat_map(|(subject, list)| list.iter().map(move |entry| (subject, entry)));
        entries.map(|(subject, (by, before))| Revocation {
            subject: subject.clone(),
            by: by.clone(),
            before: *before,
        })
    }

    /// Adds all revocations of another list.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|revocation| self.add(revocation));
    }

    /// Returns the number of revocations by one team or user.
    pub fn by(&self, by: Option<&str>) -> usize {
        self.0.values().flatten().filter(|(other, _)| other.as_deref() == by).count()
    }

    /// Returns the number of revocations.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns true when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true when the subject, issued at `issued_at`, is revoked by a team or user for which `reaches` holds.
    pub fn covers(&self, subject: &Subject, issued_at: u64, reaches: impl Fn(Option<&str>) -> bool) -> bool {
        let list = self.0.get(subject).map(Vec::as_slice).unwrap_or_default();
        // For a key or a single token the time does not matter, so clock differences do not either.
        let ignores_time = matches!(subject, Subject::Key(_) | Subject::Token(_));
        list.iter().any(|(by, before)| (ignores_time || issued_at <= *before) && reaches(by.as_deref()))
    }

    /// Removes lapsed revocations; `now` in Unix seconds.
    pub fn clean(&mut self, now: u64) {
        for (subject, list) in &mut self.0 {
            let never_lapses = matches!(subject, Subject::Key(_));
            list.retain(|(_, before)| never_lapses || before.saturating_add(LONGEST_TOKEN) > now);
        }
        self.0.retain(|_, list| !list.is_empty());
    }

    /// Writes one line per revocation.
    pub(super) fn write(&self) -> Vec<u8> {
        let line = |revocation: Revocation| format!("{} {}\n", revocation.before, revocation.name());
        let mut lines: Vec<String> = self.iter().map(line).collect();
        lines.sort_unstable();
        lines.concat().into_bytes()
    }

    /// Reads the form of [`Revocations::write`]; `None` for any other text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let mut revocations = Self::default();
        for line in std::str::from_utf8(text).ok()?.lines() {
            let (before, name) = line.split_once(' ')?;
            revocations.add(Revocation::read(name, before.parse().ok()?)?);
        }
        Some(revocations)
    }
}
