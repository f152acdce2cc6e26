//! Sections `teams` and `users`: the parties, the numbers they own, and their reach.
//!
//! An organisation reaches itself and everything below it; a sub-entity reaches itself, neither sibling nor parent; a
//! user reaches their own things and the teams they are a member of (requirement 002).

use std::collections::HashMap;
use std::rc::Rc;

use super::ceilings::{Ceiling, CeilingDocument, read_number};
use super::ids::{check_id, check_labels, check_scopes};
use super::platform::Platform;
use super::reader::{FromJson, List, Members, Reader, document, words};
use super::text_bounds::TextBound;
use crate::json::Json;
use crate::number::Number;

document! {
    /// One team of the platform.
    pub struct TeamDocument {
        /// Name here and for the upstream: 1 to 64 of `A-Z a-z 0-9 - _ . : @`.
        id: String,
        /// Place of the team in its tree.
        kind: TeamKind,
        /// The team above; a sub-entity has one.
        parent: Option<String>,
        /// Numbers it owns: its caller IDs.
        numbers: List<NumberDocument> = List::default(),
        /// `false` switches a feature off for the team and all below; absent inherits.
        features: Members<bool>,
        /// Scopes available to its keys; absent: all.
        scopes: Option<List<String>>,
        /// The most any key or token below it may do.
        ceiling: CeilingDocument = CeilingDocument::default(),
        /// Maxima of limits for the team and for all below it, by the limit's id.
        limits: Members<u64>,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

words! {
    /// Place of a team in its tree.
    pub enum TeamKind {
        /// The top of a tree.
        Organization = "organization",
        /// Below another team.
        SubEntity = "sub_entity",
    }
}

document! {
    /// One user of the platform.
    pub struct UserDocument {
        /// Name: 1 to 64 of `A-Z a-z 0-9 - _ . : @`.
        id: String,
        /// Teams within reach, in addition to the user's own things.
        member_of: List<String> = List::default(),
        /// Numbers the user owns.
        numbers: List<NumberDocument> = List::default(),
        /// `false` switches a feature off for the user; absent inherits.
        features: Members<bool>,
        /// Scopes available to the user's keys; absent: all.
        scopes: Option<List<String>>,
        /// Maxima of limits for the user, by the limit's id.
        limits: Members<u64>,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

/// An owned number: `"+15551234567"`, or an object with `active`.
#[derive(Debug, Default)]
pub struct NumberDocument {
    e164: String,
    is_active: bool,
}

document! {
    /// An owned number with its state.
    pub struct NumberObject {
        /// The number, as in `+15551234567`.
        e164: String,
        /// True when it may be a caller ID; default true.
        active: bool = true,
    }
}

impl FromJson for NumberDocument {
    const KIND: (&'static str, &'static str) = ("a number in E.164", "numbers in E.164");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        match json {
            Json::String(text) => Self { e164: text.clone().into_owned(), is_active: true },
            Json::Object(_) => {
                let NumberObject { e164, active } = NumberObject::from_json(json, at);
                Self { e164, is_active: active }
            }
            other => {
                at.expected("a number in E.164 as a text, or an object with `e164` and `active`", other);
                Self::default()
            }
        }
    }
}

/// Place of a team or user in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartyId(pub(super) usize);

/// Reach of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Itself and everything below it.
    Organization,
    /// The party itself only.
    SubEntity,
    /// Itself and the teams it is a member of.
    User,
}

/// A team or a user.
#[derive(Debug)]
pub struct Party {
    /// Its id in the policy.
    pub id: String,
    /// Reach of the party.
    pub reach: Reach,
    /// The team above it.
    pub parent: Option<PartyId>,
    /// The teams a user is a member of.
    pub member_of: Vec<PartyId>,
    /// Features it switches on or off; one that is not listed is inherited.
    pub features: Vec<(String, bool)>,
    /// The scopes available to its keys; `None`: all.
    pub scopes: Option<Vec<String>>,
    /// Bounds of its keys and of all teams below it.
    pub ceiling: Ceiling,
    /// Maxima of limits for the party and for all below it, by the limit's id.
    pub limits: Vec<(String, u64)>,
}

/// Owner of a number.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The team or user.
    pub party: PartyId,
    /// True when the number may be a caller ID.
    pub active: bool,
}

/// All parties and their numbers.
#[derive(Debug, Default)]
pub struct Tree {
    parties: Vec<Party>,
    teams: HashMap<String, PartyId>,
    users: HashMap<String, PartyId>,
    numbers: HashMap<Number, Owner>,
    reachable: Vec<String>,
}

impl Tree {
    /// Builds the tree; `parties` must be free of cycles, which the compiler checks.
    pub(super) fn new(parties: Vec<Party>, numbers: HashMap<Number, Owner>) -> Self {
        let named = |is_user: bool| {
            let all =
                parties.iter().enumerate().filter(move |(_, party)| (party.reach == Reach::User) == is_user);
            all.map(|(index, party)| (party.id.clone(), PartyId(index))).collect()
        };
        let (teams, users) = (named(false), named(true));
        let mut tree = Self { parties, teams, users, numbers, reachable: Vec::new() };
        tree.reachable = tree.list_reachable();
        tree
    }

    /// Lists for every party the teams it reaches, walking up from each team once.
    fn list_reachable(&self) -> Vec<String> {
        let mut reached: Vec<Vec<&str>> = vec![Vec::new(); self.parties.len()];
        for (index, party) in self.parties.iter().enumerate() {
            let own = PartyId(index);
            let pairs: Vec<(PartyId, &Party)> = match party.reach {
                Reach::User => {
                    party.member_of.iter().filter_map(|&team| Some((own, self.party(team)?))).collect()
                }
                Reach::Organization | Reach::SubEntity => {
                    let above = self.ancestors(own).filter(|&above| self.reaches(above, own));
                    above.chain([own]).map(|by| (by, party)).collect()
                }
            };
            for (by, team) in pairs {
                if let Some(list) = reached.get_mut(by.0) {
                    list.push(&team.id);
                }
            }
        }
        let join = |mut ids: Vec<&str>| {
            ids.sort_unstable();
            ids.dedup();
            ids.join(",")
        };
        reached.into_iter().map(join).collect()
    }

    /// Returns the most bytes that any party's list of teams takes in a header.
    pub(super) fn longest_reachable(&self) -> usize {
        self.reachable.iter().map(String::len).max().unwrap_or(0)
    }

    /// Returns the number of parties.
    pub(super) fn len(&self) -> usize {
        self.parties.len()
    }

    /// Returns the team at the top of a party's tree, or the party itself.
    pub fn top(&self, of: PartyId) -> PartyId {
        self.ancestors(of).last().unwrap_or(of)
    }

    /// Returns a party's own maximum for a limit, or that of the nearest team above with one.
    pub fn maximum(&self, of: PartyId, limit: &str) -> Option<u64> {
        let own = |party: &Party| party.limits.iter().find_map(|(id, max)| (id == limit).then_some(*max));
        self.chain(of).find_map(own)
    }

    /// Returns a party.
    pub fn party(&self, id: PartyId) -> Option<&Party> {
        self.parties.get(id.0)
    }

    /// Returns the ids of all teams.
    pub(super) fn team_ids(&self) -> impl Iterator<Item = &str> {
        self.parties.iter().filter(|party| party.reach != Reach::User).map(|party| party.id.as_str())
    }

    /// Returns the ids of all users.
    pub(super) fn user_ids(&self) -> impl Iterator<Item = &str> {
        self.parties.iter().filter(|party| party.reach == Reach::User).map(|party| party.id.as_str())
    }

    /// Finds a team by its id.
    pub fn team(&self, id: &str) -> Option<PartyId> {
        self.teams.get(id).copied()
    }

    /// Finds a user by their id.
    pub fn user(&self, id: &str) -> Option<PartyId> {
        self.users.get(id).copied()
    }

    /// Returns the ids of all teams a party reaches, comma-separated and sorted.
    pub fn reachable(&self, from: PartyId) -> &str {
        self.reachable.get(from.0).map_or("", String::as_str)
    }

    /// Returns the id of the team above a party.
    pub fn parent_id(&self, of: PartyId) -> Option<&str> {
        Some(self.party(self.party(of)?.parent?)?.id.as_str())
    }

    /// Returns whether another party is within a party's reach.
    pub fn reaches(&self, from: PartyId, other: PartyId) -> bool {
        if from == other {
            return true;
        }
        let Some(party) = self.party(from) else { return false };
        match party.reach {
            Reach::SubEntity => false,
            Reach::User => party.member_of.contains(&other),
            Reach::Organization => self.ancestors(other).any(|ancestor| ancestor == from),
        }
    }

    /// Returns the owner of a number that is active and within the party's reach.
    pub fn owned(&self, by: PartyId, number: Number) -> Option<PartyId> {
        let owner = self.numbers.get(&number)?;
        (owner.active && self.reaches(by, owner.party)).then_some(owner.party)
    }

    /// Returns whether neither the party nor any team above it switches a feature off.
    pub fn feature_allowed(&self, party: PartyId, feature: &str) -> bool {
        self.chain(party).all(|party| party.features.iter().all(|(name, on)| *on || name != feature))
    }

    /// Returns whether a scope is available to the party and every team above it.
    pub fn scope_allowed(&self, party: PartyId, scope: &str) -> bool {
        self.chain(party).all(|party| party.scopes.as_ref().is_none_or(|set| set.iter().any(|s| s == scope)))
    }

    fn ancestors(&self, of: PartyId) -> impl Iterator<Item = PartyId> {
        std::iter::successors(self.party(of).and_then(|party| party.parent), |&id| self.party(id)?.parent)
            .take(self.parties.len())
    }

    /// Returns the ceilings of all parties.
    pub(super) fn all_ceilings(&self) -> impl Iterator<Item = &Ceiling> {
        self.parties.iter().map(|party| &party.ceiling)
    }

    /// Returns the ceilings over a party: its own and those of the teams above it.
    pub fn ceilings(&self, over: PartyId) -> impl Iterator<Item = &Ceiling> {
        self.chain(over).map(|party| &party.ceiling)
    }

    /// Returns the ids of a team and of all teams above it; none for a user.
    pub fn teams_over(&self, of: PartyId) -> impl Iterator<Item = &str> {
        self.chain(of).filter(|party| party.reach != Reach::User).map(|party| party.id.as_str())
    }

    fn chain(&self, from: PartyId) -> impl Iterator<Item = &Party> {
        self.party(from).into_iter().chain(self.ancestors(from).filter_map(|id| self.party(id)))
    }
}

/// Documents of teams and users.
pub(super) struct PartyDocuments<'d> {
    pub(super) teams: &'d List<TeamDocument>,
    pub(super) users: &'d List<UserDocument>,
}

impl PartyDocuments<'_> {
    /// Compiles the tree of teams and users.
    pub(super) fn compile(&self, bounds: &[Rc<TextBound>], root: &Reader<'_>) -> Tree {
        let (teams_at, users_at) = (root.member("teams"), root.member("users"));
        let named = self.teams.iter().enumerate().rev();
        let ids: HashMap<&str, PartyId> =
            named.map(|(index, team)| (team.id.as_str(), PartyId(index))).collect();
        let teams = self.teams.each(&teams_at).map(|(at, team)| team.compile(&ids, bounds, &at));
        let users = self.users.each(&users_at).map(|(at, user)| user.compile(&ids, &at));
        let parties: Vec<Party> = teams.chain(users).collect();
        let mut numbers = HashMap::new();
        for (index, (at, team)) in self.teams.each(&teams_at).enumerate() {
            let at_id = at.member("id");
            at_id.check_unique("team id", &team.id, ids.get(team.id.as_str()) != Some(&PartyId(index)));
            own_numbers(&mut numbers, &team.numbers, PartyId(index), &at.member("numbers"));
            if let Some(problem) = ancestry_problem(&parties, index) {
                at.member("parent").refuse(problem);
            }
        }
        for (index, (at, user)) in self.users.each(&users_at).enumerate() {
            let is_taken = self.users.iter().take(index).any(|other| other.id == user.id);
            at.member("id").check_unique("user id", &user.id, is_taken);
            let id = PartyId(self.teams.len().saturating_add(index));
            own_numbers(&mut numbers, &user.numbers, id, &at.member("numbers"));
        }
        Tree::new(parties, numbers)
    }

    /// Checks the features and scopes of each team and user.
    pub(super) fn check_rights(&self, platform: &Platform, root: &Reader<'_>) {
        for (at, team) in self.teams.each(&root.member("teams")) {
            check_rights(&team.features, team.scopes.as_ref(), platform, &at);
        }
        for (at, user) in self.users.each(&root.member("users")) {
            check_rights(&user.features, user.scopes.as_ref(), platform, &at);
        }
    }
}

/// Checks that the features and scopes of a party exist.
fn check_rights(
    features: &Members<bool>,
    scopes: Option<&List<String>>,
    platform: &Platform,
    at: &Reader<'_>,
) {
    platform.check_features(features.names(), &at.member("features"));
    if let Some(scopes) = scopes {
        check_scopes(scopes, &platform.scopes, &at.member("scopes"));
    }
}

type Ids<'a> = HashMap<&'a str, PartyId>;

impl TeamDocument {
    fn compile(&self, ids: &Ids<'_>, bounds: &[Rc<TextBound>], at: &Reader<'_>) -> Party {
        check_id(&self.id, &at.member("id"));
        check_labels(&self.labels, &at.member("labels"));
        Party {
            id: self.id.clone(),
            reach: match self.kind {
                TeamKind::Organization => Reach::Organization,
                TeamKind::SubEntity => Reach::SubEntity,
            },
            parent: self.parent_id(ids, at),
            member_of: Vec::new(),
            features: self.features.0.clone(),
            scopes: self.scopes.as_deref().map(<[String]>::to_vec),
            ceiling: self.ceiling.compile(bounds, &at.member("ceiling")),
            limits: self.limits.0.clone(),
        }
    }

    fn parent_id(&self, ids: &Ids<'_>, at: &Reader<'_>) -> Option<PartyId> {
        let at = at.member("parent");
        if self.parent.is_none() && self.kind == TeamKind::SubEntity {
            at.refuse("missing; a sub-entity is below a team");
        }
        let parent = self.parent.as_ref()?;
        at.check_listed(parent, "teams", ids.keys().copied());
        ids.get(parent.as_str()).copied()
    }
}

impl UserDocument {
    fn compile(&self, ids: &Ids<'_>, at: &Reader<'_>) -> Party {
        check_id(&self.id, &at.member("id"));
        check_labels(&self.labels, &at.member("labels"));
        let teams_at = at.member("member_of");
        let teams = self.member_of.each(&teams_at).filter_map(|(at, team)| {
            at.check_listed(team, "teams", ids.keys().copied());
            ids.get(team.as_str()).copied()
        });
        Party {
            id: self.id.clone(),
            reach: Reach::User,
            parent: None,
            member_of: teams.collect(),
            features: self.features.0.clone(),
            scopes: self.scopes.as_deref().map(<[String]>::to_vec),
            ceiling: Ceiling::default(),
            limits: self.limits.0.clone(),
        }
    }
}

/// The most teams above one; every request walks up them.
const MAX_ANCESTORS: usize = 8;

/// Walks up from a team and returns the fault of its ancestors. A circle is reported once, for its first team.
fn ancestry_problem(parties: &[Party], start: usize) -> Option<&'static str> {
    let mut visited = vec![start];
    let mut at = start;
    while let Some(PartyId(parent)) = parties.get(at).and_then(|party| party.parent) {
        if parent == start {
            return (visited.iter().min() == Some(&start)).then_some("a team cannot be below itself");
        }
        if visited.contains(&parent) {
            return None;
        }
        visited.push(parent);
        at = parent;
    }
    (visited.len() > MAX_ANCESTORS + 1).then_some("more than 8 teams are above this one")
}

fn own_numbers(
    all: &mut HashMap<Number, Owner>,
    own: &List<NumberDocument>,
    party: PartyId,
    at: &Reader<'_>,
) {
    for (at, document) in own.each(at) {
        let owner = Owner { party, active: document.is_active };
        let number = read_number(&document.e164, &at);
        if number.is_some_and(|number| all.insert(number, owner).is_some()) {
            at.refuse("this number is already owned by a team or user");
        }
    }
}
