//! Teams, users and the numbers they own: who reaches whom.
//!
//! An organisation reaches itself and everything below it; a sub-entity reaches itself, neither sibling nor parent; a
//! user reaches their own things and the teams they are a member of (requirement 002). Refuses to know keys and scopes
//! of requests.

use std::collections::HashMap;

use crate::number::Number;

use super::key::Ceiling;

/// A party's place in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartyId(pub(super) usize);

/// How far a party reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Itself and everything below it.
    Organization,
    /// Itself.
    SubEntity,
    /// Itself and the teams it is a member of.
    User,
}

/// A team or a user.
#[derive(Debug)]
pub struct Party {
    /// Its id in the policy.
    pub id: String,
    /// How far it reaches.
    pub reach: Reach,
    /// The team above it.
    pub parent: Option<PartyId>,
    /// The teams a user is a member of.
    pub member_of: Vec<PartyId>,
    /// What it switches on or off; a feature not listed is inherited.
    pub features: Vec<(String, bool)>,
    /// The scopes available to its keys; `None` is "all that exist".
    pub scopes: Option<Vec<String>>,
    /// What bounds its keys and all below it.
    pub ceiling: Ceiling,
    /// Its own maxima of limits and those of all below it, by the limit's id.
    pub limits: Vec<(String, u64)>,
}

/// Whose a number is.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The team or user.
    pub party: PartyId,
    /// Whether it may be used at present.
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

    /// The most bytes any party's list of teams takes in a header.
    pub(super) fn longest_reachable(&self) -> usize {
        self.reachable.iter().map(String::len).max().unwrap_or(0)
    }

    /// How many parties there are.
    pub(super) fn len(&self) -> usize {
        self.parties.len()
    }

    /// All parties.
    pub(super) fn parties(&self) -> impl Iterator<Item = &Party> {
        self.parties.iter()
    }

    /// The team at the top of a party's tree, or the party itself.
    pub fn top(&self, of: PartyId) -> PartyId {
        self.ancestors(of).last().unwrap_or(of)
    }

    /// The maximum a party has of its own for a limit, or the nearest team above it has.
    pub fn maximum(&self, of: PartyId, limit: &str) -> Option<u64> {
        let own = |party: &Party| party.limits.iter().find_map(|(id, max)| (id == limit).then_some(*max));
        self.chain(of).find_map(own)
    }

    /// Returns a party.
    pub fn party(&self, id: PartyId) -> Option<&Party> {
        self.parties.get(id.0)
    }

    /// Finds a team by its id.
    pub fn team(&self, id: &str) -> Option<PartyId> {
        self.teams.get(id).copied()
    }

    /// Finds a user by their id.
    pub fn user(&self, id: &str) -> Option<PartyId> {
        self.users.get(id).copied()
    }

    /// The ids of all teams a party reaches, comma-separated and sorted.
    pub fn reachable(&self, from: PartyId) -> &str {
        self.reachable.get(from.0).map_or("", String::as_str)
    }

    /// The id of the team above a party.
    pub fn parent_id(&self, of: PartyId) -> Option<&str> {
        Some(self.party(self.party(of)?.parent?)?.id.as_str())
    }

    /// Tells whether one party may touch what belongs to another.
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

    /// Returns who owns a number, when it is active and within the party's reach.
    pub fn owned(&self, by: PartyId, number: Number) -> Option<PartyId> {
        let owner = self.numbers.get(&number)?;
        (owner.active && self.reaches(by, owner.party)).then_some(owner.party)
    }

    /// Tells whether neither the party nor any team above it switches a feature off.
    pub fn feature_allowed(&self, party: PartyId, feature: &str) -> bool {
        self.chain(party).all(|party| party.features.iter().all(|(name, on)| *on || name != feature))
    }

    /// Tells whether a scope is available to the party and every team above it.
    pub fn scope_allowed(&self, party: PartyId, scope: &str) -> bool {
        self.chain(party).all(|party| party.scopes.as_ref().is_none_or(|set| set.iter().any(|s| s == scope)))
    }

    fn ancestors(&self, of: PartyId) -> impl Iterator<Item = PartyId> {
        std::iter::successors(self.party(of).and_then(|party| party.parent), |&id| self.party(id)?.parent)
            .take(self.parties.len())
    }

    /// The ceilings of all parties.
    pub(super) fn all_ceilings(&self) -> impl Iterator<Item = &Ceiling> {
        self.parties.iter().map(|party| &party.ceiling)
    }

    /// The ceilings over a party: its own and those of the teams above it.
    pub fn ceilings(&self, over: PartyId) -> impl Iterator<Item = &Ceiling> {
        self.chain(over).map(|party| &party.ceiling)
    }

    /// The ids of a team and of all teams above it; of a user, none.
    pub fn teams_over(&self, of: PartyId) -> impl Iterator<Item = &str> {
        self.chain(of).filter(|party| party.reach != Reach::User).map(|party| party.id.as_str())
    }

    fn chain(&self, from: PartyId) -> impl Iterator<Item = &Party> {
        self.party(from).into_iter().chain(self.ancestors(from).filter_map(|id| self.party(id)))
    }
}
