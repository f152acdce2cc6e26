//! Routes that mint: the request, the new token, and the reply.

use std::rc::Rc;

use super::accept::Accept;
use super::bounds::check_required_feature;
use super::counting::{MAX_SESSION_SECONDS, MAX_USES};
use super::fields::Pointer;
use super::reader::{Raw, Reader, document, words};
use super::route_definitions::RouteDefinitions;
use super::template::{Template, with_constants};
use super::text_bounds::{Form, TextBound, find};
use crate::credential::Family;

document! {
    /// A route that the gateway answers with a new token.
    pub struct MintDocument {
        /// Family of the new token.
        family: String,
        /// Members of the request, by the meaning of their value.
        request: MintRequestDocument,
        /// Reply with the new token.
        reply: MintReplyDocument,
    }
}

document! {
    /// Members of a mint request, by the meaning of their value; text bounds by name.
    pub struct MintRequestDocument {
        /// True when a request needs a body; otherwise one without a body, or with `null`, is given every default. Default true.
        body_required: bool = true,
        /// Caller IDs of the token.
        from: Option<ListFieldDocument>,
        /// Destinations of the token.
        to: Option<ListFieldDocument>,
        /// Scopes of the token.
        scopes: Option<ListFieldDocument>,
        /// Lifetime of the token in seconds.
        ttl_seconds: Option<PlainFieldDocument>,
        /// The longest a session may last, in seconds.
        session_seconds: Option<RangeFieldDocument>,
        /// Number of times the token may be used.
        uses: Option<RangeFieldDocument>,
        /// Seconds that all sessions of the token may last together.
        total_seconds: Option<RangeFieldDocument>,
        /// Metadata of the token: an object.
        metadata: Option<MetadataFieldDocument>,
        ..texts: TextFieldDocument,
    }
}

document! {
    /// A member of the request.
    pub struct PlainFieldDocument {
        /// Name of the member, or its JSON pointer.
        field: String,
        /// True when it must be present; default false.
        required: bool = false,
        /// True when `null` is the same as absent; default false.
        nullable: bool = false,
    }
}

document! {
    /// A member that holds a list.
    pub struct ListFieldDocument {
        /// Name of the member, or its JSON pointer.
        field: String,
        /// True when it must be present; default false.
        required: bool = false,
        /// True when `null` is the same as absent; default false.
        nullable: bool = false,
        /// The most entries, 1 to 1,000.
        max: u64,
        /// Meaning of an empty list; default `refuse`.
        empty: EmptyWord = EmptyWord::Refuse,
    }
}

document! {
    /// A member that holds a number.
    pub struct RangeFieldDocument {
        /// Name of the member, or its JSON pointer.
        field: String,
        /// True when it must be present; default false.
        required: bool = false,
        /// True when `null` is the same as absent; default false.
        nullable: bool = false,
        /// The least; default 1.
        min: u64 = 1,
        /// The most: 1,000 uses, or 604,800 seconds, which is also the default.
        max: Option<u64>,
    }
}

document! {
    /// A member that holds the token's metadata, an object.
    pub struct MetadataFieldDocument {
        /// Name of the member, or its JSON pointer.
        field: String,
        /// True when it must be present; default false.
        required: bool = false,
        /// True when `null` is the same as absent; default false.
        nullable: bool = false,
        /// The most bytes of its JSON; default and most 1,024.
        max_bytes: u64 = 1_024,
    }
}

document! {
    /// The value of a text bound: a member of the request (`field`), or made by the gateway (`generate`).
    pub struct TextFieldDocument {
        /// Name of the member, or its JSON pointer.
        field: Option<String>,
        /// True when it must be present; default false.
        required: bool = false,
        /// True when `null` is the same as absent; default false.
        nullable: bool = false,
        /// The most entries of a list, 1 to 1,000; absent: one text.
        max: Option<u64>,
        /// Meaning of an empty list; default `refuse`.
        empty: Option<EmptyWord>,
        /// The gateway makes the value itself; this or `field`.
        generate: Option<GenerateWord>,
        /// Feature that an endpoint must have.
        requires_feature: Option<String>,
    }
}

words! {
    /// Value that the gateway makes itself.
    pub enum GenerateWord {
        /// A random UUID (RFC 9562 section 5.4).
        Uuid = "uuid",
    }
}

words! {
    /// Meaning of an empty list.
    pub enum EmptyWord {
        /// An empty list is refused.
        Refuse = "refuse",
        /// An empty list is the same as an absent member.
        Absent = "absent",
    }
}

document! {
    /// Reply to a mint request.
    pub struct MintReplyDocument {
        /// Status, 200 to 299, of a reply with a body.
        status: u64,
        /// Body; a text `$name` is replaced by a value.
        body: MintTemplate,
    }
}

super::template::template_document! {
    /// Body of the reply to a mint request; `$NAME` of a text bound and `$constants.NAME` as well.
    MintTemplate, MINT_NAMES, super::schema_parts::Others::BoundsAndConstants
}

/// Values of a mint reply, in addition to the text bounds.
pub(super) const MINT_NAMES: &[&str] = &[
    "token",
    "jwt",
    "ttl_seconds",
    "expires_at",
    "expires_at_iso",
    "issued_at",
    "issued_at_iso",
    "from",
    "to",
    "scopes",
    "session_seconds",
    "total_seconds",
    "uses",
    "metadata",
    "token_id",
    "key_id",
];

/// Compiled route that answers with a new token.
pub struct MintRule {
    /// Family of the new token.
    pub family: Rc<Family>,
    /// The member that asks for caller IDs.
    pub from: Option<SizedList>,
    /// The member that asks for destinations.
    pub to: Option<SizedList>,
    /// The member that asks for scopes.
    pub scopes: Option<SizedList>,
    /// The member that asks for a lifetime in seconds.
    pub ttl: Option<Field>,
    /// The member that asks for the longest session, in seconds.
    pub session: Option<RangeField>,
    /// Number of times the token may be used.
    pub uses: Allowance,
    /// Seconds that all sessions of the token may last together.
    pub total: Allowance,
    /// The member that holds the token's metadata.
    pub metadata: Option<MetadataField>,
    /// The members that ask for text bounds.
    pub texts: Vec<TextField>,
    /// True when a request may have no body, or `null` as its body.
    pub body_optional: bool,
    /// The features that must be on for the owner of every caller ID and endpoint, as for the route itself.
    pub features: Vec<String>,
    /// Scopes of a token whose request names none.
    pub default_scopes: Vec<String>,
    /// Status of the reply.
    pub status: u16,
    /// Body of the reply.
    pub body: Template,
}

impl MintRule {
    /// Returns whether its tokens can be used up, by uses or by seconds.
    pub fn gives_counted(&self) -> bool {
        self.uses.is_given() || self.total.is_given()
    }

    /// Returns every member the request may have.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        let lists = [&self.from, &self.to, &self.scopes].into_iter().flatten().map(|list| &list.field);
        let texts = self.texts.iter().filter_map(|text| match &text.source {
            ValueSource::FieldRef { field, .. } => Some(field),
            ValueSource::Generated => None,
        });
        lists
            .chain(&self.ttl)
            .chain(
                [&self.session, &self.uses.requested, &self.total.requested]
                    .into_iter()
                    .flatten()
                    .map(|range| &range.field),
            )
            .chain(self.metadata.iter().map(|metadata| &metadata.field))
            .chain(texts)
    }
}

/// A member of a mint request.
#[derive(Debug)]
pub struct Field {
    /// Pointer to the member.
    pub pointer: Pointer,
    /// True when it must be present.
    pub required: bool,
    /// True when `null` is the same as absent.
    pub nullable: bool,
}

/// A member that holds a list.
#[derive(Debug)]
pub struct SizedList {
    /// The member itself.
    pub field: Field,
    /// The most entries it may have.
    pub max: usize,
    /// True when an empty list is the same as no list; otherwise it is refused.
    pub empty_is_absent: bool,
}

/// A member that asks for a number.
#[derive(Debug)]
pub struct RangeField {
    /// The member itself.
    pub field: Field,
    /// The least that may be asked for.
    pub min: u64,
    /// The most that may be asked for.
    pub max: u64,
}

/// Uses or seconds that a token is given.
#[derive(Debug, Default)]
pub struct Allowance {
    /// The member that asks for a number.
    pub requested: Option<RangeField>,
    /// Number of a token whose request names none; `None`: it is not counted.
    pub default: Option<u64>,
}

impl Allowance {
    /// Returns whether a token can have such a number.
    fn is_given(&self) -> bool {
        self.requested.is_some() || self.default.is_some()
    }
}

/// The member whose object is the token's metadata.
#[derive(Debug)]
pub struct MetadataField {
    /// The member itself.
    pub field: Field,
    /// The most bytes it may take as JSON.
    pub max_bytes: usize,
}

/// One text bound of a new token.
#[derive(Debug)]
pub struct TextField {
    /// Bound of the token.
    pub bound: Rc<TextBound>,
    /// Source of the value.
    pub source: ValueSource,
    /// Feature that an endpoint must have.
    pub required_feature: Option<String>,
}

/// Source of the value of a token's bound.
#[derive(Debug)]
pub enum ValueSource {
    /// A member of the request.
    FieldRef {
        /// The member itself.
        field: Field,
        /// The most entries of a list; `None`: one text.
        max: Option<usize>,
        /// True when an empty list is the same as no list; otherwise it is refused.
        empty_is_absent: bool,
    },
    /// The gateway, with a random UUID (RFC 9562 section 5.4).
    Generated,
}

impl MintDocument {
    pub(super) fn compile(
        &self,
        accept: &Accept,
        features: &[String],
        definitions: &RouteDefinitions<'_>,
        at: &Reader<'_>,
    ) -> Option<MintRule> {
        accept.check_only_api_keys("mint", at);
        let family_at = at.member("family");
        family_at.check_listed(&self.family, "tokens", definitions.family_names());
        let family = definitions.family(&self.family)?;
        if !family.can_sign {
            family_at.refuse("no key of `token_keys` with `sign: true` is for this family");
        }
        let (status, body) = self.reply.compile(definitions, &at.member("reply"));
        let mut rule = MintRule {
            family: Rc::clone(&family.family),
            from: None,
            to: None,
            scopes: None,
            ttl: None,
            session: None,
            uses: Allowance { requested: None, default: family.document.uses.default },
            total: Allowance { requested: None, default: family.document.total_seconds.default },
            metadata: None,
            texts: Vec::new(),
            body_optional: !self.request.body_required,
            features: features.to_vec(),
            default_scopes: family.document.default_scopes.to_vec(),
            status,
            body: body?,
        };
        self.request.compile_into(&mut rule, definitions, &at.member("request"));
        Some(rule)
    }
}

impl MintReplyDocument {
    fn compile(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> (u16, Option<Template>) {
        // 204 and 205 have no body to put the token into (RFC 9110 section 15.3).
        let status = u16::try_from(self.status).unwrap_or(0);
        if !(200..300).contains(&status) || matches!(status, 204 | 205) {
            at.member("status").refuse("expected a status from 200 to 299 that has a body");
        }
        let body = Raw(with_constants(self.body.0.clone(), definitions.constants));
        (status, Template::compile(body, &definitions.with_bounds(MintTemplate::NAMES), &at.member("body")))
    }
}

impl MintRequestDocument {
    fn compile_into(&self, rule: &mut MintRule, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) {
        let list = |document: &Option<ListFieldDocument>, name| document.as_ref()?.compile(&at.member(name));
        rule.from = list(&self.from, "from");
        rule.to = list(&self.to, "to");
        rule.scopes = list(&self.scopes, "scopes");
        rule.ttl = self.ttl_seconds.as_ref().and_then(|field| field.compile(&at.member("ttl_seconds")));
        let seconds = |document: &Option<RangeFieldDocument>, name| {
            document.as_ref()?.compile(MAX_SESSION_SECONDS, "seconds", &at.member(name))
        };
        rule.session = seconds(&self.session_seconds, "session_seconds");
        rule.total.requested = seconds(&self.total_seconds, "total_seconds");
        rule.uses.requested =
            self.uses.as_ref().and_then(|field| field.compile(MAX_USES, "", &at.member("uses")));
        rule.metadata = self.metadata.as_ref().and_then(|field| field.compile(&at.member("metadata")));
        for (name, field) in self.texts.iter() {
            rule.texts.extend(field.compile(name, definitions, &at.member(name)));
        }
        check_distinct(rule, at);
        rule.uses.check(&at.member("uses"));
        rule.total.check(&at.member("total_seconds"));
    }
}

/// Names that a mint request gives a meaning to.
const REQUEST_NAMES: &[&str] = &[
    "from",
    "to",
    "scopes",
    "ttl_seconds",
    "session_seconds",
    "total_seconds",
    "uses",
    "metadata",
    "body_required",
];

/// Reads the name of a member, or its JSON pointer.
pub(super) fn read_pointer(text: &str, at: &Reader<'_>) -> Option<Pointer> {
    let pointer = Pointer::of_member(text);
    if pointer.is_none() {
        at.refuse("expected the name of a member of the body, or its JSON pointer");
    }
    pointer
}

impl PlainFieldDocument {
    fn compile(&self, at: &Reader<'_>) -> Option<Field> {
        let pointer = read_pointer(&self.field, &at.member("field"))?;
        Some(Field { pointer, required: self.required, nullable: self.nullable })
    }
}

/// Reads the most entries of a list.
fn list_size(max: u64, at: &Reader<'_>) -> usize {
    at.member("max").check_range(max, 1..=1_000, "entries");
    usize::try_from(max).unwrap_or(0)
}

impl ListFieldDocument {
    fn compile(&self, at: &Reader<'_>) -> Option<SizedList> {
        let max = list_size(self.max, at);
        let pointer = read_pointer(&self.field, &at.member("field"))?;
        let field = Field { pointer, required: self.required, nullable: self.nullable };
        Some(SizedList { field, max, empty_is_absent: self.empty == EmptyWord::Absent })
    }
}

impl RangeFieldDocument {
    fn compile(&self, most: u64, unit: &str, at: &Reader<'_>) -> Option<RangeField> {
        let (min, max) = (self.min, self.max.unwrap_or(most));
        if min == 0 || min > max || max > most {
            at.refuse(format!("expected 1 <= min <= max <= {most} {unit}").trim_end());
        }
        let pointer = read_pointer(&self.field, &at.member("field"))?;
        Some(RangeField {
            field: Field { pointer, required: self.required, nullable: self.nullable },
            min,
            max,
        })
    }
}

impl MetadataFieldDocument {
    fn compile(&self, at: &Reader<'_>) -> Option<MetadataField> {
        at.member("max_bytes").check_range(self.max_bytes, 1..=1_024, "bytes");
        let pointer = read_pointer(&self.field, &at.member("field"))?;
        let field = Field { pointer, required: self.required, nullable: self.nullable };
        Some(MetadataField { field, max_bytes: usize::try_from(self.max_bytes).unwrap_or(0) })
    }
}

impl TextFieldDocument {
    fn compile(&self, name: &str, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Option<TextField> {
        let bounds = definitions.bounds;
        let Some(bound) = find(bounds, name) else {
            let names = bounds.iter().map(|bound| bound.name.as_str());
            at.check_named(name, "one of `platform.bounds`", names, REQUEST_NAMES);
            return None;
        };
        check_required_feature(self.requires_feature.as_deref(), bound, definitions.platform, at);
        let source = match (&self.field, self.generate) {
            (Some(field), None) => self.member(field, at)?,
            (None, Some(_)) => {
                self.check_generated(bound, at);
                ValueSource::Generated
            }
            _ => {
                at.refuse("expected either `field` or `generate`");
                return None;
            }
        };
        Some(TextField { bound: Rc::clone(bound), source, required_feature: self.requires_feature.clone() })
    }

    fn member(&self, field: &str, at: &Reader<'_>) -> Option<ValueSource> {
        let max = self.max.map(|max| list_size(max, at));
        if max.is_none() && self.empty.is_some() {
            at.member("empty").refuse("only a list can be empty: give `max` as well");
        }
        let pointer = read_pointer(field, &at.member("field"))?;
        let field = Field { pointer, required: self.required, nullable: self.nullable };
        Some(ValueSource::FieldRef { field, max, empty_is_absent: self.empty == Some(EmptyWord::Absent) })
    }

    /// Checks that a generated value has no settings of a member, and fits the bound.
    fn check_generated(&self, bound: &TextBound, at: &Reader<'_>) {
        if self.required || self.nullable || self.max.is_some() || self.empty.is_some() {
            at.refuse("nothing goes beside `generate`");
        }
        if bound.form != Form::Text || bound.values.is_some() {
            at.refuse("a generated value cannot be one of this bound's");
        }
    }
}

impl Allowance {
    /// Checks that the default is not more than a request may name.
    fn check(&self, at: &Reader<'_>) {
        if let (Some(requested), Some(default)) = (&self.requested, self.default)
            && default > requested.max
            && !at.has_error()
        {
            at.member("max").refuse(format!("less than the family's default of {default}"));
        }
    }
}

/// Checks that no member has two meanings or contains another.
fn check_distinct(rule: &MintRule, at: &Reader<'_>) {
    let pointers: Vec<&Pointer> = rule.fields().map(|field| &field.pointer).collect();
    let collide = |one: &Pointer, other: &Pointer| {
        one.names().starts_with(other.names()) || other.names().starts_with(one.names())
    };
    let is_taken =
        |(index, one): (usize, &&Pointer)| pointers.iter().take(index).any(|other| collide(one, other));
    if pointers.iter().enumerate().any(is_taken) {
        at.refuse("one member of the body cannot have two meanings");
    }
}
