//! Lists what the directory holds of what the asker reaches, a page at a time.

use std::collections::BTreeMap;

use crate::json::Json;
use crate::policy::{ENDPOINT, Endpoint, FieldRef, ListingRule, Policy};
use crate::reason::Reason;

use super::answer::{text, texts};
use super::reading::Part;
use super::rights::Rights;
use super::verdict::Denial;

/// Answers a listing.
pub(super) fn list(
    policy: &Policy,
    rule: &ListingRule,
    rights: &Rights<'_>,
    part: &Part<'_>,
) -> Result<Vec<u8>, Denial> {
    let page = whole_number(rule.page.as_ref(), part, 1, u64::MAX)?;
    let limit = whole_number(rule.limit.as_ref(), part, rule.default_limit, rule.max_limit)?;
    let bound = policy.bound(ENDPOINT).map(|(index, _)| index);
    // What the asker reaches and is not kept from by a ceiling.
    let is_visible = |endpoint: &&Endpoint| {
        rights.reaches(endpoint) && bound.is_none_or(|bound| rights.check_text(bound, &endpoint.id).is_ok())
    };
    let endpoints = policy.directory.iter().filter(is_visible);
    let (total, items) = match rule.by_app {
        false => cut(endpoints.collect(), page, limit, |endpoint| item(policy, rule, endpoint)),
        true => cut(by_app(endpoints), page, limit, |(name, endpoints)| app(policy, rule, name, &endpoints)),
    };
    Ok(rule.body.render(&|name| match name {
        "items" => Some(Json::Array(items.clone())),
        "total" => Some(Json::from(total)),
        "page" => Some(Json::from(page)),
        "limit" => Some(Json::from(limit)),
        "total_pages" => Some(Json::from(total.div_ceil(limit))),
        _ => None,
    }))
}

/// How many there are, and those of one page, written.
fn cut<T>(
    all: Vec<T>,
    page: u64,
    limit: u64,
    write: impl FnMut(T) -> Json<'static>,
) -> (u64, Vec<Json<'static>>) {
    let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let skip = usize::try_from((page - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    (total, all.into_iter().skip(skip).take(take).map(write).collect())
}

fn item(policy: &Policy, rule: &ListingRule, endpoint: &Endpoint) -> Json<'static> {
    let filled = rule.endpoint.fill(&|name| match name {
        "id" => Some(text(&endpoint.id)),
        "name" => endpoint.name.as_deref().map(text),
        "app" => endpoint.app.as_deref().map(text),
        "team" => policy.tree.party(endpoint.owner).map(|party| text(&party.id)),
        "state" => Some(Json::from(if endpoint.is_archived { "archived" } else { "active" })),
        "capable" => Some(texts(&endpoint.features)),
        _ => None,
    });
    filled.into_owned()
}

/// Applications by name, each with its endpoints; an endpoint of none is in none.
fn by_app<'p>(endpoints: impl Iterator<Item = &'p Endpoint>) -> Vec<(&'p str, Vec<&'p Endpoint>)> {
    let mut apps: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(app) = &endpoint.app {
            apps.entry(app).or_default().push(endpoint);
        }
    }
    apps.into_iter().collect()
}

fn app(policy: &Policy, rule: &ListingRule, name: &str, endpoints: &[&Endpoint]) -> Json<'static> {
    let filled = rule.app.fill(&|value| match value {
        "app" => Some(text(name)),
        "endpoints" => {
            Some(Json::Array(endpoints.iter().map(|endpoint| item(policy, rule, endpoint)).collect()))
        }
        _ => None,
    });
    filled.into_owned()
}

/// Reads a whole number from 1 on, written without sign, blanks or leading zeros.
fn whole_number(member: Option<&FieldRef>, part: &Part<'_>, default: u64, max: u64) -> Result<u64, Denial> {
    let Some(member) = member else { return Ok(default) };
    let Some(text) = part.read(&member.place)? else { return Ok(default) };
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    match number {
        Some(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Denial::at(Reason::MemberType, &member.place)),
    }
}
