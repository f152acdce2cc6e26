//! Routes the gateway answers itself: what is read from the request and what the answer looks like, as data.

use super::bound::FieldRef;
use super::place::Pointer;
use super::template::Template;

/// The values a mint reply may use, beside the text bounds.
pub(super) const MINT_NAMES: &[&str] = &[
    "token",
    "jwt",
    "ttl",
    "expires_at",
    "expires_at_iso",
    "issued_at",
    "issued_at_iso",
    "from",
    "to",
    "scopes",
    "session",
    "total",
    "uses",
    "metadata",
    "token_id",
    "key_id",
];

/// The values an introspection may use, beside the text bounds.
pub(super) const STATE_NAMES: &[&str] = &[
    "active",
    "state",
    "expires_at",
    "expires_at_iso",
    "issued_at",
    "issued_at_iso",
    "scopes",
    "from",
    "to",
    "session",
    "total",
    "uses",
    "token_id",
    "key_id",
];

/// The values of one endpoint, of one application, and of a page of either.
pub(super) const ENDPOINT_NAMES: &[&str] = &["id", "name", "app", "team", "state", "capable"];
pub(super) const APP_NAMES: &[&str] = &["app", "endpoints"];
pub(super) const PAGE_NAMES: &[&str] = &["items", "total", "page", "limit", "total_pages"];

/// How a route mints.
pub struct MintRule {
    /// The family of the new token.
    pub family: usize,
    /// The member that asks for caller IDs.
    pub from: Option<SizedList>,
    /// The member that asks for destinations.
    pub to: Option<SizedList>,
    /// The member that asks for scopes.
    pub scopes: Option<SizedList>,
    /// The member that asks for a lifetime in seconds.
    pub ttl: Option<Field>,
    /// The member that asks for the longest session.
    pub session: Option<RangeField>,
    /// How often the new token may be used.
    pub uses: Allowance,
    /// How many seconds all its sessions may last together.
    pub total: Allowance,
    /// The member that holds what the token carries along.
    pub metadata: Option<MetadataField>,
    /// The members that ask for text bounds.
    pub texts: Vec<TextField>,
    /// Whether there may be no body, or `null` for one.
    pub body_optional: bool,
    /// The features that must be on for the owner of every caller ID and endpoint, as for the route itself.
    pub features: Vec<String>,
    /// What is given when no scopes are asked for.
    pub default_scopes: Vec<String>,
    /// The only scopes a token may carry; `None` = any its key holds, except those that mint.
    pub mintable_scopes: Option<Vec<String>>,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub body: Template,
}

impl MintRule {
    /// Whether its tokens may be used up: by uses, or by seconds.
    pub fn gives_counted(&self) -> bool {
        self.uses.is_given() || self.total.is_given()
    }

    /// Every member the request may have.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        let lists = [&self.from, &self.to, &self.scopes].into_iter().flatten().map(|list| &list.field);
        let texts = self.texts.iter().filter_map(|text| match &text.asked {
            Asked::FieldRef { field, .. } => Some(field),
            Asked::Generated => None,
        });
        lists
            .chain(&self.ttl)
            .chain(
                [&self.session, &self.uses.asked, &self.total.asked]
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
    /// Where it stands.
    pub pointer: Pointer,
    /// Whether it must be there.
    pub required: bool,
    /// Whether `null` is the same as leaving it out.
    pub nullable: bool,
}

/// A member that holds a list.
#[derive(Debug)]
pub struct SizedList {
    /// The member.
    pub field: Field,
    /// The most entries it may have.
    pub max: usize,
    /// Whether an empty list is the same as no list; refused otherwise.
    pub empty_is_absent: bool,
}

/// A member that asks for a number.
#[derive(Debug)]
pub struct RangeField {
    /// The member.
    pub field: Field,
    /// The least that may be asked for.
    pub min: u64,
    /// The most that may be asked for.
    pub max: u64,
}

/// How much of something a token is given.
#[derive(Debug, Default)]
pub struct Allowance {
    /// The member that asks for it.
    pub asked: Option<RangeField>,
    /// What a token is given that asks for none; `None` = without end.
    pub default: Option<u64>,
}

impl Allowance {
    /// Whether some token gets it.
    fn is_given(&self) -> bool {
        self.asked.is_some() || self.default.is_some()
    }
}

/// How a route revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokeRule {
    /// Whether everything may be revoked, not only what the key's team reaches.
    pub reaches_everything: bool,
}

/// The member whose object a token carries along.
#[derive(Debug)]
pub struct MetadataField {
    /// The member.
    pub field: Field,
    /// The most bytes it may take as JSON.
    pub max_bytes: usize,
}

/// How a token comes to a text bound.
#[derive(Debug)]
pub struct TextField {
    /// The bound's place in the policy.
    pub bound: usize,
    /// Who says the value.
    pub asked: Asked,
    /// The feature an endpoint must be capable of.
    pub capable: Option<String>,
}

/// Who says the value of a token's bound.
#[derive(Debug)]
pub enum Asked {
    /// The request.
    FieldRef {
        /// Its member.
        field: Field,
        /// The most entries of a list; `None` = one string.
        max: Option<usize>,
        /// Whether an empty list is the same as no list; refused otherwise.
        empty_is_absent: bool,
    },
    /// The gateway: a random UUID (RFC 9562 section 5.4).
    Generated,
}

/// How a route tells the state of a token.
pub struct IntrospectRule {
    /// The families whose tokens it knows.
    pub families: Vec<usize>,
    /// The member of the body that holds the token.
    pub member: Pointer,
    /// The body of the answer.
    pub body: Template,
}

/// How a route lists what the directory holds.
pub struct ListingRule {
    /// Whether endpoints stand below their applications.
    pub by_app: bool,
    /// Where the number of the page stands, from 1.
    pub page: Option<FieldRef>,
    /// Where the size of a page stands.
    pub limit: Option<FieldRef>,
    /// The size of a page when none is asked for.
    pub default_limit: u64,
    /// The largest page.
    pub max_limit: u64,
    /// One endpoint.
    pub endpoint: Template,
    /// One application.
    pub app: Template,
    /// The body of the answer.
    pub body: Template,
}
