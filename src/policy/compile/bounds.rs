//! Bounds: the text bounds a platform has, the ceilings of keys and teams, and what a route reads.

use super::super::Platform;
use super::super::bound::{
    BoundSource, Bounds, Call, ENDPOINT, FieldRef, Form, TextBound, TextRule, index_of,
};
use super::super::config::{
    CeilingConfig, DirectionConfig, EndpointConfig, FormConfig, Members, Raw, TextBoundConfig,
};
use super::super::error::Problems;
use super::super::key::Ceiling;
use super::super::place::RequestField;
use super::local::MAX_SESSION;
use super::{Document, check_id, number_list, quoted, section};
use crate::json::Json;
use crate::uri::fold;

/// Names that mean something else where bounds are named, or where the upstream is told of them.
const RESERVED: &[&str] = &[
    "key",
    "team",
    "teams",
    "user",
    "token",
    "from",
    "to",
    "session",
    "total",
    "uses",
    "ttl",
    "scopes",
    "metadata",
    "body",
    "closed",
    "closed_query",
    ENDPOINT,
];

/// The text bounds there are; with a directory, `endpoint` is one of them.
pub(super) fn text_bounds(
    document: &Document<'_>,
    declared: Members<TextBoundConfig>,
    problems: &mut Problems,
) -> Vec<TextBound> {
    let mut bounds = Vec::new();
    for (name, config) in declared.0 {
        let path = format!("platform.bounds.{name}");
        check_id(&name, &path, problems);
        // Each name is told to the upstream in a header of its own: two must not be one there.
        let is_header = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        let is_reserved = RESERVED.iter().any(|reserved| fold(reserved) == fold(&name));
        if is_reserved
            || !is_header
            || bounds.iter().any(|other: &TextBound| fold(&other.name) == fold(&name))
        {
            problems.add(
                &path,
                "this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
            );
        }
        bounds.push(text_bound(name, config, &path, problems));
    }
    if document.0.get("endpoints").is_some() {
        bounds.push(TextBound {
            name: ENDPOINT.to_owned(),
            form: Form::Endpoint,
            values: Some(endpoint_ids(document)),
            aliases: Vec::new(),
        });
    }
    bounds
}

/// The ids as they stand in the document; what is wrong with an endpoint is said when it is compiled.
fn endpoint_ids(document: &Document<'_>) -> Vec<String> {
    let endpoints = document.elements::<EndpointConfig>("endpoints", &mut Problems::default());
    let mut ids: Vec<String> = endpoints.into_iter().map(|(_, endpoint)| endpoint.id).collect();
    ids.sort_unstable();
    ids
}

fn text_bound(name: String, config: TextBoundConfig, path: &str, problems: &mut Problems) -> TextBound {
    let form = match config.form {
        FormConfig::Text => Form::Text,
        FormConfig::Origin => Form::Origin,
    };
    let mut bound = TextBound { name, form, values: None, aliases: config.aliases.0 };
    if config.values.as_ref().is_some_and(Vec::is_empty) {
        problems.add(format!("{path}.values"), "an empty list allows nothing; leave it out to allow any");
    }
    for (index, value) in config.values.iter().flatten().enumerate() {
        if !bound.fits(value) || bound.canonical(value) != value {
            problems.add(format!("{path}.values[{index}]"), "this cannot be a value of the bound");
        }
    }
    bound.values = config.values.map(|mut values| {
        values.sort_unstable();
        values
    });
    for (alias, value) in &bound.aliases {
        let path = format!("{path}.aliases.{alias}");
        if !bound.fits(alias) || bound.canonical(value) != value || !bound.fits(value) || !bound.has(value) {
            problems.add(path, "an alias stands for one of the bound's values, and not for another alias");
        }
    }
    bound
}

/// Reads a ceiling.
pub(super) fn ceiling(
    config: &CeilingConfig,
    bounds: &[TextBound],
    path: &str,
    problems: &mut Problems,
) -> Ceiling {
    let mut ceiling = Ceiling::default();
    for (name, Raw(raw)) in &config.0 {
        let path = format!("{path}.{name}");
        match name.as_str() {
            "from" => ceiling.from = numbers(raw, &path, problems),
            "to" => ceiling.to = numbers(raw, &path, problems),
            "session" => ceiling.session = section(raw, &path, problems),
            _ => match index_of(bounds, name) {
                Some(index) => ceiling.texts.extend(texts(raw, index, bounds, &path, problems)),
                None => {
                    problems.add(path, "neither `from`, `to` nor `session`, and not one of platform.bounds")
                }
            },
        }
    }
    if ceiling.session.is_some_and(|seconds| seconds == 0 || seconds > MAX_SESSION) {
        problems.add(format!("{path}.session"), format!("expected 1 to {MAX_SESSION} seconds"));
    }
    ceiling
}

fn numbers(raw: &Json<'_>, path: &str, problems: &mut Problems) -> Option<Vec<crate::number::Number>> {
    let list: Option<Vec<String>> = section(raw, path, problems);
    number_list(list.as_ref(), path, problems)
}

/// Reads a list of a bound's values into canonical, sorted order.
fn texts(
    raw: &Json<'_>,
    index: usize,
    bounds: &[TextBound],
    path: &str,
    problems: &mut Problems,
) -> Option<(usize, Vec<String>)> {
    let list: Vec<String> = section(raw, path, problems)?;
    let bound = bounds.get(index)?;
    if list.is_empty() {
        problems.add(
            path,
            "an empty list allows nothing; leave it out to allow whatever the next wider level does",
        );
    }
    for (index, value) in list.iter().enumerate() {
        if !bound.fits(value) || !bound.has(bound.canonical(value)) {
            problems
                .add(format!("{path}[{index}]"), format!("{} is not one of `{}`", quoted(value), bound.name));
        }
    }
    let mut values: Vec<String> = list.iter().map(|value| bound.canonical(value).to_owned()).collect();
    values.sort_unstable();
    values.dedup();
    Some((index, values))
}

/// Reads `routes[].bounds`.
pub(super) fn route_bounds(
    config: Members<Raw>,
    texts: &[TextBound],
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Bounds {
    let mut read = Bounds::default();
    let (mut from, mut to) = (None, None);
    for (name, Raw(raw)) in config.0 {
        let path = format!("{path}.{name}");
        match name.as_str() {
            "from" => from = number_direction(&raw, &path, problems),
            "to" => to = number_direction(&raw, &path, problems),
            "closed" => read.closed = section(&raw, &path, problems),
            "closed_query" => read.closed_query = section(&raw, &path, problems),
            _ => match index_of(texts, &name) {
                Some(index) => {
                    read.declared.push(index);
                    read.texts.extend(text_rule(&raw, index, texts, platform, &path, problems));
                }
                None => problems.add(path, "neither `from` nor `to`, and not one of platform.bounds"),
            },
        }
    }
    read.call = match (from, to) {
        (Some(from), Some(to)) => Some(Call { from, to }),
        (None, None) => None,
        (Some(_), None) => {
            problems.add(path, "missing `to`: a call has a caller and a destination (`\"members\": []` where it cannot be read)");
            None
        }
        (None, Some(_)) => {
            problems.add(path, "missing `from`: a call has a caller and a destination (`\"members\": []` where it cannot be read)");
            None
        }
    };
    check_places(&read, path, problems);
    if read.closed.is_some() && !read.reads_body() {
        problems.add(format!("{path}.closed"), "this route reads no body");
    }
    read
}

/// One place cannot say two things.
fn check_places(bounds: &Bounds, path: &str, problems: &mut Problems) {
    let places: Vec<(&str, String)> = bounds.places().map(RequestField::folded).collect();
    if places.iter().enumerate().any(|(index, place)| places.iter().take(index).any(|other| other == place)) {
        problems.add(path, "one place of the request cannot say two things, or one thing twice");
    }
}

fn number_direction(raw: &Json<'_>, path: &str, problems: &mut Problems) -> Option<BoundSource> {
    let config: DirectionConfig = section(raw, path, problems)?;
    if config.implied || config.capable.is_some() {
        problems.add(path, "`implied` and `capable` are for text bounds");
    }
    Some(direction(&config, path, problems))
}

/// Reads what a route says of one text bound; `"any"` is said and judges nothing.
fn text_rule(
    raw: &Json<'_>,
    bound: usize,
    texts: &[TextBound],
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Option<TextRule> {
    if raw.as_str() == Some("any") {
        return None;
    }
    let config: DirectionConfig = section(raw, path, problems)?;
    let is_endpoint = texts.get(bound).is_some_and(|bound| bound.form == Form::Endpoint);
    check_capable(config.capable.as_deref(), is_endpoint, platform, path, problems);
    if config.implied && config.members.iter().any(|member| !member.ends_with('?')) {
        problems
            .add(format!("{path}.implied"), "what must be said is not implied: close each member with `?`");
    }
    let direction = direction(&config, path, problems);
    Some(TextRule { bound, direction, implied: config.implied, capable: config.capable })
}

/// A misspelt feature would be one that no endpoint has.
pub(super) fn check_capable(
    capable: Option<&str>,
    is_endpoint: bool,
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) {
    let Some(feature) = capable else { return };
    if !is_endpoint {
        problems.add(format!("{path}.capable"), "only endpoints are capable of something");
    } else if !platform.knows_feature(feature) {
        problems
            .add(format!("{path}.capable"), format!("{} is not one of platform.features", quoted(feature)));
    }
}

fn direction(config: &DirectionConfig, path: &str, problems: &mut Problems) -> BoundSource {
    let members = config.members.iter().enumerate();
    let members = members
        .filter_map(|(index, text)| member(text, &format!("{path}.members[{index}]"), problems))
        .collect();
    let chosen_by = config.chosen_by.iter().enumerate();
    let chosen_by = chosen_by
        .filter_map(|(index, text)| place(text, &format!("{path}.chosen_by[{index}]"), problems))
        .collect();
    let direction = BoundSource { members, chosen_by, screen_only: config.screen_only };
    let places = direction.members.iter().map(|member| &member.place).chain(&direction.chosen_by);
    let in_body = places.clone().filter(|place| place.is_in_body()).count();
    if in_body > 0 && in_body < places.count() {
        problems.add(path, "the members of one bound stand all in the body or all outside it");
    }
    direction
}

/// Reads a place; `?` behind it says that it may be absent.
pub(super) fn member(text: &str, path: &str, problems: &mut Problems) -> Option<FieldRef> {
    let (text, optional) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
    Some(FieldRef { place: place(text, path, problems)?, optional })
}

fn place(text: &str, path: &str, problems: &mut Problems) -> Option<RequestField> {
    let place = RequestField::parse(text);
    if place.is_none() && (text.starts_with('/') || !text.contains(':')) {
        problems.add(path, format!("`{text}` is not a JSON pointer, as in `/from_number`"));
    } else if place.is_none() {
        problems.add(
            path,
            format!("`{text}` is no place, as in `/member`, `query:name`, `header:name` or `path:name`"),
        );
    }
    place
}
