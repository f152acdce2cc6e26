//! What has been revoked before its time.
//!
//! A list of subjects that no longer count, the same whether it came from the policy, from this gateway's memory or
//! from the fleet's store. Refuses to know who may revoke what: that was settled before something was added.

use std::collections::HashMap;

/// The longest a token lives, in seconds, with what clocks may be off: after that a revocation of tokens has no object.
pub(super) const LONGEST_TOKEN: u64 = 86_400 + super::KEPT_SECONDS;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An API key and all its tokens.
    Key(String),
    /// One token, by its `jti`.
    Token(String),
    /// Every token of a key.
    TokensOfKey(String),
    /// Every token of a team's keys.
    TokensOfTeam(String),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub subject: Subject,
    /// The team or user whose word it is: a token's id says nothing of whose it is, so its revocation reaches no
    /// further than they do. `None` reaches everything.
    pub by: Option<String>,
    /// Unix seconds: what was issued then or earlier is revoked.
    pub before: u64,
}

/// Something that is not a revocation's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationError;

impl Subject {
    /// The word and the id.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Key(id) => ("key", id),
            Self::Token(id) => ("token", id),
            Self::TokensOfKey(id) => ("tokens_of_key", id),
            Self::TokensOfTeam(id) => ("tokens_of_team", id),
        }
    }

    /// Makes a subject of its word and its id.
    pub fn of(word: &str, id: &str) -> Option<Self> {
        let id = id.to_owned();
        match word {
            "key" => Some(Self::Key(id)),
            "token" => Some(Self::Token(id)),
            "tokens_of_key" => Some(Self::TokensOfKey(id)),
            "tokens_of_team" => Some(Self::TokensOfTeam(id)),
            _ => None,
        }
    }
}

impl Revocation {
    /// The same revocation of the same subject has one name: a second one takes the first one's place.
    pub fn name(&self) -> String {
        let (word, id) = self.subject.parts();
        format!("{word} {id} {}", self.by.as_deref().unwrap_or("*"))
    }

    /// Reads what [`Revocation::name`] wrote, and the instant beside it.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn read(name: &str, before: u64) -> Result<Self, RevocationError> {
        let mut words = name.split(' ');
        let (Some(word), Some(id), Some(by), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(RevocationError);
        };
        let subject = Subject::of(word, id).ok_or(RevocationError)?;
        Ok(Self { subject, by: (by != "*").then(|| by.to_owned()), before })
    }

    /// Until when it says something, in Unix seconds; `None`: for ever.
    pub fn until(&self) -> Option<u64> {
        match self.subject {
            Subject::Key(_) => None,
            _ => Some(self.before.saturating_add(LONGEST_TOKEN)),
        }
    }
}

/// All revocations, by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(HashMap<Subject, Vec<(Option<String>, u64)>>);

impl Revocations {
    /// Adds one; of two for the same subject by the same team the later instant counts.
    pub fn add(&mut self, revocation: Revocation) {
        let list = self.0.entry(revocation.subject).or_default();
        match list.iter_mut().find(|(by, _)| *by == revocation.by) {
            Some((_, before)) => *before = revocation.before.max(*before),
            None => list.push((revocation.by, revocation.before)),
        }
    }

    /// Adds all of another list.
    pub fn merge(&mut self, other: &Self) {
        for (subject, list) in &other.0 {
            for (by, before) in list {
                self.add(Revocation { subject: subject.clone(), by: by.clone(), before: *before });
            }
        }
    }

    /// How many there are by one team's or user's word.
    pub fn by(&self, by: Option<&str>) -> usize {
        self.0.values().flatten().filter(|(other, _)| other.as_deref() == by).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something issued at an instant is revoked by somebody whose word reaches it.
    pub fn covers(&self, subject: &Subject, issued_at: u64, reaches: impl Fn(Option<&str>) -> bool) -> bool {
        let list = self.0.get(subject).map(Vec::as_slice).unwrap_or_default();
        // A key, or a token by its id, is revoked whole; clocks that differ decide nothing there.
        let is_whole = matches!(subject, Subject::Key(_) | Subject::Token(_));
        list.iter().any(|(by, before)| (is_whole || issued_at <= *before) && reaches(by.as_deref()))
    }

    /// Leaves out those whose object has expired; `now` in Unix seconds.
    pub fn clean(&mut self, now: u64) {
        for (subject, list) in &mut self.0 {
            let is_for_ever = matches!(subject, Subject::Key(_));
            list.retain(|(_, before)| is_for_ever || before.saturating_add(LONGEST_TOKEN) > now);
        }
        self.0.retain(|_, list| !list.is_empty());
    }

    /// One line each.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (subject, list) in &self.0 {
            for (by, before) in list {
                let revocation = Revocation { subject: subject.clone(), by: by.clone(), before: *before };
                lines.push(format!("{before} {}\n", revocation.name()));
            }
        }
        lines.sort_unstable();
        lines.concat().into_bytes()
    }

    /// Reads the lines.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let mut revocations = Self::default();
        for line in std::str::from_utf8(text).ok()?.lines() {
            let (before, name) = line.split_once(' ')?;
            revocations.add(Revocation::read(name, before.parse().ok()?).ok()?);
        }
        Some(revocations)
    }
}
