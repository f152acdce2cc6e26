//! Routes the gateway answers itself: mint, introspect, directory, key set.

use super::super::bound::{Form, TextBound, index_of};
use super::super::config::{
    AskedConfig, BodyConfig, EmptyConfig, IntrospectConfig, ListedConfig, ListingConfig, Members, MintConfig,
    Raw,
};
use super::super::error::Problems;
use super::super::local::{
    APP_NAMES, Allowance, Asked, ENDPOINT_NAMES, Field, IntrospectRule, ListingRule, MINT_NAMES,
    MetadataField, MintRule, PAGE_NAMES, RangeField, STATE_NAMES, SizedList, TextField,
};
use super::super::place::{Pointer, RequestField};
use super::super::route::Accept;
use super::super::template::Template;
use super::bounds::{check_capable, member};
use super::keyring::CompiledFamily;
use super::{Known, check_known_scopes, quoted, section};
use crate::json::Json;

/// The most seconds a session may last: a week.
pub(super) const MAX_SESSION: u64 = 604_800;

/// The most uses a token may be given.
pub(super) const MAX_USES: u64 = 1_000;

fn names_with_bounds(fixed: &[&str], bounds: &[TextBound]) -> Vec<String> {
    let bounds = bounds.iter().map(|bound| bound.name.clone());
    fixed.iter().map(|name| (*name).to_owned()).chain(bounds).collect()
}

fn template<N: AsRef<str>>(raw: Raw, names: &[N], path: &str, problems: &mut Problems) -> Option<Template> {
    Template::compile(raw.0, names).map_err(|message| problems.add(path, message)).ok()
}

/// Puts the document's constants where an answer names them, as in `$constants.domain`: a deployment sets them without
/// writing the routes again.
fn with_constants(json: Json<'static>, constants: &[(String, Raw)]) -> Json<'static> {
    let named = |text: &str| {
        let name = text.strip_prefix("$constants.")?;
        constants.iter().find_map(|(known, Raw(value))| (known == name).then(|| value.clone()))
    };
    match json {
        Json::String(text) => named(&text).unwrap_or(Json::String(text)),
        Json::Array(items) => {
            Json::Array(items.into_iter().map(|item| with_constants(item, constants)).collect())
        }
        Json::Object(members) => Json::Object(
            members.into_iter().map(|(name, value)| (name, with_constants(value, constants))).collect(),
        ),
        other => other,
    }
}

pub(super) fn mint(
    config: MintConfig,
    accept: &Accept,
    features: &[String],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) -> Option<MintRule> {
    if !matches!(accept, Accept::Credentials { api_key: true, tokens } if tokens.is_empty()) {
        problems.add(path, "only API keys may mint: `accept` must be `[\"api_key\"]`");
    }
    let Some(index) = known.families.iter().position(|family| family.family.name == config.family) else {
        problems.add(
            format!("{path}.family"),
            format!("{} is not one of the families of tokens minted here", quoted(&config.family)),
        );
        return None;
    };
    let family = known.families.get(index)?;
    check_minting_family(family, known, path, problems);
    // 204 and 205 have no body to put the token into (RFC 9110 section 15.3).
    if !(200..300).contains(&config.reply.status) || matches!(config.reply.status, 204 | 205) {
        problems.add(format!("{path}.reply.status"), "expected a status from 200 to 299 that has a body");
    }
    let names = names_with_bounds(MINT_NAMES, &known.bounds);
    let body = Raw(with_constants(config.reply.body.0, &known.constants));
    let body = template(body, &names, &format!("{path}.reply.body"), problems)?;
    let rule = MintRule {
        family: index,
        from: None,
        to: None,
        scopes: None,
        ttl: None,
        session: None,
        uses: Allowance { asked: None, default: family.uses.default },
        total: Allowance { asked: None, default: family.total.default },
        metadata: None,
        texts: Vec::new(),
        body_optional: false,
        features: features.to_vec(),
        default_scopes: family.default_scopes.clone(),
        mintable_scopes: family.mintable_scopes.clone(),
        status: config.reply.status,
        body,
    };
    let rule = read_request(rule, config.request, known, &format!("{path}.request"), problems);
    check_distinct(&rule, path, problems);
    check_allowance(&rule.uses, &format!("{path}.request.uses"), problems);
    check_allowance(&rule.total, &format!("{path}.request.total"), problems);
    Some(rule)
}

/// Reads what a mint body asks for.
fn read_request(
    mut rule: MintRule,
    request: Members<Raw>,
    known: &Known,
    path: &str,
    problems: &mut Problems,
) -> MintRule {
    for (name, Raw(raw)) in request.0 {
        let path = format!("{path}.{name}");
        if name == "body" {
            rule.body_optional = section(&raw, &path, problems) == Some(BodyConfig::Optional);
            continue;
        }
        let Some(config) = section::<AskedConfig>(&raw, &path, problems) else { continue };
        let asked = AskedFor { config, path, problems };
        match name.as_str() {
            "from" => rule.from = asked.list(),
            "to" => rule.to = asked.list(),
            "scopes" => rule.scopes = asked.list(),
            "ttl" => rule.ttl = asked.field(&[]),
            "session" => rule.session = asked.range(MAX_SESSION, " seconds"),
            "uses" => rule.uses.asked = asked.range(MAX_USES, ""),
            "total" => rule.total.asked = asked.range(MAX_SESSION, " seconds"),
            "metadata" => rule.metadata = asked.metadata(),
            _ => rule.texts.extend(asked.text(&name, known)),
        }
    }
    rule
}

/// One thing a mint body asks for, being read.
struct AskedFor<'p> {
    config: AskedConfig,
    path: String,
    problems: &'p mut Problems,
}

impl AskedFor<'_> {
    /// Reads the member; settings that are for something else than `settings` are refused.
    fn field(self, settings: &[&str]) -> Option<Field> {
        let AskedConfig { member, required, nullable, min, max, max_bytes, empty, generate, capable } =
            self.config;
        let given = [
            ("min", min.is_some()),
            ("max", max.is_some()),
            ("max_bytes", max_bytes.is_some()),
            ("empty", empty.is_some()),
            ("generate", generate.is_some()),
            ("capable", capable.is_some()),
        ];
        for (name, _) in given.iter().filter(|(name, given)| *given && !settings.contains(name)) {
            self.problems.add(format!("{}.{name}", self.path), "this means nothing here");
        }
        let pointer = member.as_deref().and_then(Pointer::of_member);
        if pointer.is_none() {
            self.problems.add(
                format!("{}.member", self.path),
                "missing; name the member of the body, or its JSON pointer",
            );
        }
        Some(Field { pointer: pointer?, required, nullable })
    }

    fn list(self) -> Option<SizedList> {
        let max = self.size();
        let empty_is_absent = self.config.empty == Some(EmptyConfig::Absent);
        match max {
            None => self
                .problems
                .add(format!("{}.max", self.path), "missing; say how many entries the list may have"),
            Some(max) if max == 0 || max > 1_000 => {
                self.problems.add(format!("{}.max", self.path), "expected 1 to 1000 entries");
            }
            Some(_) => {}
        }
        Some(SizedList { field: self.field(&["max", "empty"])?, max: max?, empty_is_absent })
    }

    fn size(&self) -> Option<usize> {
        self.config.max.and_then(|max| usize::try_from(max).ok())
    }

    fn range(self, most: u64, unit: &str) -> Option<RangeField> {
        let (min, max) = (self.config.min.unwrap_or(1), self.config.max.unwrap_or(most));
        if min == 0 || min > max || max > most {
            self.problems.add(&self.path, format!("expected 1 <= min <= max <= {most}{unit}"));
        }
        Some(RangeField { field: self.field(&["min", "max"])?, min, max })
    }

    fn metadata(self) -> Option<MetadataField> {
        let max_bytes = self.config.max_bytes.unwrap_or(1_024);
        if !(1..=1_024).contains(&max_bytes) {
            self.problems.add(format!("{}.max_bytes", self.path), "expected 1 to 1024 bytes");
        }
        let max_bytes = usize::try_from(max_bytes).unwrap_or(1_024);
        Some(MetadataField { field: self.field(&["max_bytes"])?, max_bytes })
    }

    /// A value made here is any text, and asked of nobody.
    fn check_generated(&mut self, bound: Option<&TextBound>) {
        let config = &self.config;
        let is_asked = config.member.is_some()
            || config.max.is_some()
            || config.min.is_some()
            || config.max_bytes.is_some()
            || config.empty.is_some()
            || config.required
            || config.nullable;
        if is_asked {
            self.problems
                .add(&self.path, "expected one of `member` and `generate`, and nothing beside `generate`");
        }
        if !bound.is_some_and(|bound| bound.form == Form::Text && bound.values.is_none()) {
            self.problems.add(&self.path, "a generated value is none of this bound's");
        }
    }

    fn text(mut self, name: &str, known: &Known) -> Option<TextField> {
        let bounds = &known.bounds;
        let Some(bound) = index_of(bounds, name) else {
            self.problems.add(self.path, "not one of platform.bounds");
            return None;
        };
        let is_endpoint = bounds.get(bound).is_some_and(|bound| bound.form == Form::Endpoint);
        let capable = self.config.capable.clone();
        check_capable(capable.as_deref(), is_endpoint, &known.platform, &self.path, self.problems);
        if self.config.generate.is_some() {
            self.check_generated(bounds.get(bound));
            return Some(TextField { bound, asked: Asked::Generated, capable });
        }
        let (max, empty_is_absent) = (self.size(), self.config.empty == Some(EmptyConfig::Absent));
        if max.is_some_and(|max| max == 0 || max > 1_000) {
            self.problems.add(format!("{}.max", self.path), "expected 1 to 1000 entries");
        }
        let settings: &[&str] = if max.is_some() { &["max", "empty", "capable"] } else { &["capable"] };
        let field = self.field(settings)?;
        Some(TextField { bound, asked: Asked::FieldRef { field, max, empty_is_absent }, capable })
    }
}

/// Whoever asks for nothing must not be given more than whoever asks.
fn check_allowance(allowance: &Allowance, path: &str, problems: &mut Problems) {
    if let (Some(asked), Some(default)) = (&allowance.asked, allowance.default)
        && default > asked.max
    {
        problems
            .add(format!("{path}.max"), format!("less than what a token gets that asks for none: {default}"));
    }
}

/// One member cannot ask for two things, nor hold what another one is.
fn check_distinct(rule: &MintRule, path: &str, problems: &mut Problems) {
    let pointers: Vec<&Pointer> = rule.fields().map(|field| &field.pointer).collect();
    let collide = |one: &Pointer, other: &Pointer| {
        one.names().starts_with(other.names()) || other.names().starts_with(one.names())
    };
    let is_taken =
        |(index, one): (usize, &&Pointer)| pointers.iter().take(index).any(|other| collide(one, other));
    if pointers.iter().enumerate().any(is_taken) {
        problems.add(format!("{path}.request"), "one member cannot ask for two things");
    }
}

fn check_minting_family(family: &CompiledFamily, known: &Known, path: &str, problems: &mut Problems) {
    if !family.can_sign {
        problems.add(format!("{path}.family"), "no key of the keyring with `sign: true` is for this family");
    }
    let scopes = format!("tokens.{}", family.family.name);
    let platform = &known.platform.scopes;
    check_known_scopes(&family.default_scopes, platform, &format!("{scopes}.default_scopes"), problems);
    let mintable = family.mintable_scopes.as_deref().unwrap_or_default();
    check_known_scopes(mintable, platform, &format!("{scopes}.mintable_scopes"), problems);
}

pub(super) fn introspect(
    config: IntrospectConfig,
    known: &Known,
    path: &str,
    problems: &mut Problems,
) -> Option<IntrospectRule> {
    let families = family_indices(&config.families, known, &format!("{path}.families"), problems);
    let member = Pointer::of_member(&config.member);
    if member.is_none() {
        problems.add(format!("{path}.member"), "name the member of the body, or its JSON pointer");
    }
    let names = names_with_bounds(STATE_NAMES, &known.bounds);
    let body = template(config.reply, &names, &format!("{path}.reply"), problems);
    Some(IntrospectRule { families, member: member?, body: body? })
}

fn family_indices(names: &[String], known: &Known, path: &str, problems: &mut Problems) -> Vec<usize> {
    if names.is_empty() {
        problems.add(path, "name at least one family of tokens minted here");
    }
    let indices = names.iter().enumerate().filter_map(|(index, name)| {
        let found = known.families.iter().position(|family| family.family.name == *name);
        if found.is_none() {
            problems.add(
                format!("{path}[{index}]"),
                format!("{} is not one of the families of tokens minted here", quoted(name)),
            );
        }
        found
    });
    indices.collect()
}

pub(super) fn listing(config: ListingConfig, path: &str, problems: &mut Problems) -> Option<ListingRule> {
    let by_app = config.of == ListedConfig::Apps;
    if by_app != config.app.is_some() {
        problems.add(format!("{path}.app"), "`app` says how an application looks, when `of` is `apps`");
    }
    let page = config.page.and_then(|text| member(&text, &format!("{path}.page"), problems));
    let limit = config.limit.as_ref();
    let (default_limit, max_limit) = limit.map_or((20, 100), |limit| (limit.default, limit.max));
    if default_limit == 0 || default_limit > max_limit || max_limit > 1_000 {
        problems.add(format!("{path}.limit"), "expected 1 <= default <= max <= 1000");
    }
    let limit = limit.and_then(|limit| limit.at.as_ref());
    let limit = limit.and_then(|text| member(text, &format!("{path}.limit.at"), problems));
    if [&page, &limit].into_iter().flatten().any(|member| !matches!(member.place, RequestField::Query(_))) {
        problems.add(path, "`page` and `limit.at` are query parameters, as in `query:page`");
    }
    let empty = Raw(Json::Object(Vec::new()));
    let endpoint = template(config.endpoint, ENDPOINT_NAMES, &format!("{path}.endpoint"), problems);
    let app = template(config.app.unwrap_or(empty), APP_NAMES, &format!("{path}.app"), problems);
    let body = template(config.reply, PAGE_NAMES, &format!("{path}.reply"), problems);
    Some(ListingRule {
        by_app,
        page,
        limit,
        default_limit,
        max_limit,
        endpoint: endpoint?,
        app: app?,
        body: body?,
    })
}

/// Writes the public keys of families as a JWK set; a secret is never in it.
pub(super) fn key_set(names: &[String], known: &Known, path: &str, problems: &mut Problems) -> Vec<u8> {
    let mut keys: Vec<Json<'static>> = Vec::new();
    for index in family_indices(names, known, path, problems) {
        let Some(family) = known.families.get(index) else { continue };
        if !family.has_public_key {
            problems.add(
                path,
                format!("`{}` has only secret keys: nobody else can verify its tokens", family.family.name),
            );
        }
        for key in family.family.public_keys().filter(|key| !keys.contains(key)).collect::<Vec<_>>() {
            if keys.iter().any(|other| other.get("kid") == key.get("kid")) {
                problems
                    .add(path, "two of these families have different keys of one `kid`: give each its own");
            }
            keys.push(key);
        }
    }
    serde_json::to_vec(&Json::Object(vec![("keys".into(), Json::Array(keys))])).unwrap_or_default()
}
