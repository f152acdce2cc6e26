//! Routes that answer with the state of a token.

use std::rc::Rc;

use super::fields::Pointer;
use super::mint::read_pointer;
use super::reader::{List, Raw, Reader, document};
use super::route_definitions::RouteDefinitions;
use super::template::{Template, template_document};
use crate::credential::Family;

document! {
    /// A route that the gateway answers with the state of a token.
    pub struct IntrospectDocument {
        /// Families whose tokens are recognised.
        families: List<String>,
        /// Member of the body that holds the token, or its JSON pointer.
        field: String,
        /// Body of the reply; a text `$name` is replaced by a value.
        reply: StateTemplate,
    }
}

template_document! {
    /// Body of the reply about a token; `$NAME` of a text bound as well.
    StateTemplate, STATE_NAMES, super::schema_parts::Others::Bounds
}

/// Values of an introspection, in addition to the text bounds.
const STATE_NAMES: &[&str] = &[
    "active",
    "state",
    "expires_at",
    "expires_at_iso",
    "issued_at",
    "issued_at_iso",
    "scopes",
    "from",
    "to",
    "session_seconds",
    "total_seconds",
    "uses",
    "token_id",
    "key_id",
];

/// Compiled route that answers with the state of a token.
pub struct IntrospectRule {
    /// Families whose tokens are recognised, by their places in the policy.
    pub families: Vec<Rc<Family>>,
    /// Member of the body that holds the token.
    pub member: Pointer,
    /// Body of the reply.
    pub body: Template,
}

impl IntrospectDocument {
    pub(super) fn compile(
        &self,
        definitions: &RouteDefinitions<'_>,
        at: &Reader<'_>,
    ) -> Option<IntrospectRule> {
        let families = definitions.families(&self.families, &at.member("families"));
        let families = families.into_iter().map(|family| Rc::clone(&family.family)).collect();
        let member = read_pointer(&self.field, &at.member("field"));
        let names = definitions.with_bounds(StateTemplate::NAMES);
        let body = Template::compile(Raw(self.reply.0.clone()), &names, &at.member("reply"));
        Some(IntrospectRule { families, member: member?, body: body? })
    }
}
