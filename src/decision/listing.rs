//! Lists the endpoints that the principal reaches, one page at a time.

use std::collections::BTreeMap;

use crate::json::Json;
use crate::policy::{ENDPOINT, Endpoint, FieldRef, ListingRule, Policy};
use crate::reason::Reason;

use super::answer::{text, texts};
use super::denial::Denial;
use super::fields::RequestPart;
use super::rights::Rights;

/// Page that a request asks for.
#[derive(Clone, Copy)]
struct Page {
    /// Number of the page, from 1.
    number: u64,
    /// Entries of a page.
    limit: u64,
}

impl Page {
    fn read(rule: &ListingRule, part: RequestPart<'_>) -> Result<Self, Denial> {
        let number = read_count(rule.page.as_ref(), part, u64::MAX)?.unwrap_or(1);
        let limit = read_count(rule.limit.as_ref(), part, rule.max_limit)?.unwrap_or(rule.default_limit);
        Ok(Self { number, limit })
    }

    /// Writes the entries of this page. Returns the number of all entries, and those of the page.
    fn write<T>(self, all: Vec<T>, write: impl FnMut(T) -> Json<'static>) -> (u64, Vec<Json<'static>>) {
        let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let skip = usize::try_from((self.number - 1).saturating_mul(self.limit)).unwrap_or(usize::MAX);
        let take = usize::try_from(self.limit).unwrap_or(usize::MAX);
        (total, all.into_iter().skip(skip).take(take).map(write).collect())
    }
}

/// Reads a whole number from 1 to `max`, written without sign, blanks or leading zeros; `None` when it is absent.
fn read_count(member: Option<&FieldRef>, part: RequestPart<'_>, max: u64) -> Result<Option<u64>, Denial> {
    let Some(member) = member else { return Ok(None) };
    let Some(text) = part.value(&member.place)? else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    match number {
        Some(number) if (1..=max).contains(&number) => Ok(Some(number)),
        _ => Err(Denial::at(Reason::MemberType, &member.place)),
    }
}

/// Writes the page that a request asks for.
pub(super) fn list(
    rule: &ListingRule,
    rights: &Rights<'_>,
    part: RequestPart<'_>,
) -> Result<Vec<u8>, Denial> {
    let page = Page::read(rule, part)?;
    let policy = rights.policy();
    let bound = policy.bound(ENDPOINT);
    let is_visible = |endpoint: &&Endpoint| {
        rights.reaches(endpoint) && bound.is_none_or(|bound| rights.check_text(bound, &endpoint.id).is_ok())
    };
    let endpoints = policy.endpoints.iter().filter(is_visible);
    let (total, items) = match rule.by_app {
        false => page.write(endpoints.collect(), |endpoint| endpoint_entry(policy, rule, endpoint)),
        true => page.write(by_app(endpoints), |(name, endpoints)| app_entry(policy, rule, name, &endpoints)),
    };
    Ok(rule.body.render(&|name| match name {
        "items" => Some(Json::Array(items.clone())),
        "total" => Some(Json::from(total)),
        "page" => Some(Json::from(page.number)),
        "limit" => Some(Json::from(page.limit)),
        "total_pages" => Some(Json::from(total.div_ceil(page.limit))),
        _ => None,
    }))
}

fn endpoint_entry(policy: &Policy, rule: &ListingRule, endpoint: &Endpoint) -> Json<'static> {
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

/// Groups endpoints by application, sorted by name; an endpoint without an application is left out.
fn by_app<'p>(endpoints: impl Iterator<Item = &'p Endpoint>) -> Vec<(&'p str, Vec<&'p Endpoint>)> {
    let mut apps: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(app) = &endpoint.app {
            apps.entry(app).or_default().push(endpoint);
        }
    }
    apps.into_iter().collect()
}

fn app_entry(policy: &Policy, rule: &ListingRule, name: &str, endpoints: &[&Endpoint]) -> Json<'static> {
    let entry = |endpoint: &&Endpoint| endpoint_entry(policy, rule, endpoint);
    let filled = rule.app.fill(&|value| match value {
        "app" => Some(text(name)),
        "endpoints" => Some(Json::Array(endpoints.iter().map(entry).collect())),
        _ => None,
    });
    filled.into_owned()
}
