//! Routes that answer with a list of the endpoints within reach, or of the applications they belong to.

use super::fields::{FieldDocument, FieldRef, RequestField};
use super::reader::{Raw, Reader, document, words};
use super::template::{Template, template_document};
use crate::json::Json;

document! {
    /// A route that the gateway answers with a list.
    pub struct ListDocument {
        /// Entries of the list.
        of: ListedWord,
        /// Query parameter of the page's number, counted from 1, as in `query:page`.
        page: Option<FieldDocument>,
        /// Size of a page.
        limit: PageSizeDocument = PageSizeDocument::default(),
        /// One endpoint; a text `$name` is replaced by a value.
        endpoint: EndpointTemplate,
        /// One application, when applications are listed.
        app: Option<AppTemplate>,
        /// Body of the reply; a text `$name` is replaced by a value.
        reply: PageTemplate,
    }
}

words! {
    /// Entries of a list.
    pub enum ListedWord {
        /// Endpoints, by id.
        Endpoints = "endpoints",
        /// Applications, by name.
        Apps = "apps",
    }
}

document! {
    /// Size of a page.
    pub struct PageSizeDocument {
        /// Query parameter of the size, as in `query:limit`.
        at: Option<FieldDocument>,
        /// Size of a page when the request names none.
        default: u64 = 20,
        /// The largest size, at most 1,000.
        max: u64 = 100,
    }
}

template_document! {
    /// One endpoint of a list.
    EndpointTemplate, &["id", "name", "app", "team", "state", "capable"], super::schema_parts::Others::None
}

template_document! {
    /// One application of a list.
    AppTemplate, &["app", "endpoints"], super::schema_parts::Others::None
}

template_document! {
    /// Body of the reply to a list.
    PageTemplate, &["items", "total", "page", "limit", "total_pages"], super::schema_parts::Others::None
}

/// Compiled route that answers with a list.
pub struct ListingRule {
    /// True when endpoints are grouped by their applications.
    pub by_app: bool,
    /// Field of the page's number, counted from 1.
    pub page: Option<FieldRef>,
    /// Field of the page's size.
    pub limit: Option<FieldRef>,
    /// Size of a page when the request names none.
    pub default_limit: u64,
    /// The largest size of a page.
    pub max_limit: u64,
    /// Entry for one endpoint.
    pub endpoint: Template,
    /// Entry for one application.
    pub app: Template,
    /// Body of the reply.
    pub body: Template,
}

impl ListDocument {
    pub(super) fn compile(&self, at: &Reader<'_>) -> Option<ListingRule> {
        let by_app = self.of == ListedWord::Apps;
        if by_app != self.app.is_some() {
            at.member("app").refuse("`app` is the form of an application, when `of` is `apps`");
        }
        let PageSizeDocument { default, max, at: size } = &self.limit;
        if *default == 0 || default > max || *max > 1_000 {
            at.member("limit").refuse("expected 1 <= default <= max <= 1000");
        }
        let query = |document: &Option<FieldDocument>, at: &Reader<'_>| {
            let field = document.as_ref()?.compile(at)?;
            if !matches!(field.place, RequestField::Query(_)) {
                at.refuse("expected a query parameter, as in `query:page`");
            }
            Some(field)
        };
        let template = |json: &Json<'static>, names: &[&str], name| {
            Template::compile(Raw(json.clone()), names, &at.member(name))
        };
        let app = self.app.as_ref().map_or(Json::Object(Vec::new()), |app| app.0.clone());
        let endpoint = template(&self.endpoint.0, EndpointTemplate::NAMES, "endpoint");
        let app = template(&app, AppTemplate::NAMES, "app");
        let body = template(&self.reply.0, PageTemplate::NAMES, "reply");
        Some(ListingRule {
            by_app,
            page: query(&self.page, &at.member("page")),
            limit: query(size, &at.member("limit").member("at")),
            default_limit: *default,
            max_limit: *max,
            endpoint: endpoint?,
            app: app?,
            body: body?,
        })
    }
}
