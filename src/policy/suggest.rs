//! Likely fixes: the nearest name, and the new name of a renamed member.

/// Members by their names before 0.1.0 and now; goes with that release.
const RENAMED: &[(&str, &str)] = &[
    ("from", "locations"),
    ("credential_from", "credential_locations"),
    ("api_keys", "api_key_formats"),
    ("forward", "forward_credential"),
    ("identify", "forward_fields"),
    ("present", "upstream_credential"),
    ("upstream_keys", "upstream_credentials"),
    ("keyring", "token_keys"),
    ("key", "acts_as"),
    ("directory", "list"),
    ("home", "backend"),
    ("held_by", "hold_headers"),
    ("screen_only", "partial"),
    ("chosen_by", "delegated_by"),
    ("read_parent", "include_parent"),
    ("capable", "requires_feature"),
    ("feature", "features"),
    ("members", "fields"),
    ("member", "field"),
    ("body", "body_required"),
    ("session", "session_seconds"),
    ("total", "total_seconds"),
    ("ttl", "ttl_seconds"),
    ("leeway", "leeway_seconds"),
    ("ahead", "ahead_seconds"),
    ("refresh", "refresh_seconds"),
    ("stale", "stale_seconds"),
    ("cooldown", "cooldown_seconds"),
    ("fresh", "fresh_seconds"),
    ("unknown", "unknown_seconds"),
];

/// Members that are now in another object, and where.
const MOVED: &[(&str, &str)] = &[
    ("external", "tokens of other issuers are in the section `issuers`"),
    ("closed", "name these members in `body.members` of the route"),
    ("closed_query", "name these parameters in `query.members` of the route"),
];

/// Returns where a member of this name is now.
pub(super) fn moved(name: &str) -> Option<&'static str> {
    MOVED.iter().find_map(|(old, help)| (*old == name).then_some(*help))
}

/// Returns the new name of a member.
pub(super) fn renamed(name: &str) -> Option<&'static str> {
    RENAMED.iter().find_map(|(old, new)| (*old == name).then_some(*new))
}

/// Returns the name nearest to a misspelt one, if any is near: at most one edit for every three letters.
pub(super) fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let near = names.iter().map(|other| (distance(&name.to_lowercase(), &other.to_lowercase()), *other));
    near.filter(|(edits, _)| *edits <= most).min_by_key(|(edits, _)| *edits).map(|(_, other)| other)
}

/// Counts insertions, deletions, replacements and swaps of neighbours between two names (Damerau, restricted). Names
/// of more than 64 characters are far from every other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len() > 64 || other.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, left) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in other.iter().enumerate() {
            let at = |list: &[usize], index: usize| list.get(index).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&above, column) + usize::from(left != right);
            let mut least = replaced.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            let is_swap = row > 0
                && column > 0
                && one.get(row - 1) == Some(right)
                && other.get(column - 1) == Some(left);
            if is_swap {
                least = least.min(at(&before, column - 1) + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(usize::MAX)
}
