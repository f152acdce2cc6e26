//! Lists what the directory holds of what the asker reaches, a page at a time.

use crate::json::Json;
use crate::policy::{Endpoint, ListingRule, Member, Policy};
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
    let endpoints = policy.directory.iter().filter(|endpoint| is_visible(policy, rights, endpoint));
    let items = match rule.by_app {
        false => endpoints.map(|endpoint| item(policy, rule, endpoint)).collect(),
        true => by_app(policy, rule, endpoints),
    };
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let skip = usize::try_from((page - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    let items: Vec<_> = items.into_iter().skip(skip).take(take).collect();
    Ok(rule.body.render(&|name| match name {
        "items" => Some(Json::Array(items.clone())),
        "total" => Some(Json::from(total)),
        "page" => Some(Json::from(page)),
        "limit" => Some(Json::from(limit)),
        "total_pages" => Some(Json::from(total.div_ceil(limit))),
        _ => None,
    }))
}

/// What the asker reaches and is not kept from by a ceiling.
fn is_visible(policy: &Policy, rights: &Rights<'_>, endpoint: &Endpoint) -> bool {
    let bound = policy.bound(crate::policy::ENDPOINT);
    rights.reaches(endpoint) && bound.is_none_or(|(index, _)| rights.check_text(index, &endpoint.id).is_ok())
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
fn by_app<'p>(
    policy: &Policy,
    rule: &ListingRule,
    endpoints: impl Iterator<Item = &'p Endpoint>,
) -> Vec<Json<'static>> {
    let mut apps: std::collections::BTreeMap<&str, Vec<Json<'static>>> = std::collections::BTreeMap::new();
    for endpoint in endpoints {
        if let Some(app) = &endpoint.app {
            apps.entry(app).or_default().push(item(policy, rule, endpoint));
        }
    }
    let filled = apps.into_iter().map(|(app, endpoints)| {
        let filled = rule.app.fill(&|name| match name {
            "app" => Some(text(app)),
            "endpoints" => Some(Json::Array(endpoints.clone())),
            _ => None,
        });
        filled.into_owned()
    });
    filled.collect()
}

/// Reads a whole number from 1 on, written without sign, blanks or leading zeros.
fn whole_number(member: Option<&Member>, part: &Part<'_>, default: u64, max: u64) -> Result<u64, Denial> {
    let Some(member) = member else { return Ok(default) };
    let Some(text) = part.read(&member.place)? else { return Ok(default) };
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    match number {
        Some(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Denial::at(Reason::MemberType, &member.place)),
    }
}
