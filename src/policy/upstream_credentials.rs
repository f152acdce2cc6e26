//! Section `upstream_credentials`: the platform's own credentials, sent to the upstream instead of the client's.

use super::fields::RequestField;
use super::ids::{check_header_name, check_id};
use super::reader::{List, Reader, document};
use super::secrets::{MasterDocument, SecretLoader};

document! {
    /// A credential for the upstream.
    pub struct UpstreamCredentialDocument {
        /// Name that routes refer to it by.
        id: String,
        /// Source of its text, which is sent as it is.
        secret: MasterDocument,
    }
}

document! {
    /// The credential that the upstream receives instead of the client's.
    pub struct RouteCredentialDocument {
        /// Entry of `upstream_credentials`.
        key: String,
        /// Its place: `query:name` or `header:name`.
        at: String,
        /// Word before it in a header, as in `Bearer`.
        scheme: Option<String>,
    }
}

/// A credential of the platform's own that the upstream receives. Deliberately without `Debug`.
pub struct InsertedCredential {
    /// Its place: the query or a header.
    pub place: RequestField,
    /// The whole value.
    pub value: String,
}

impl InsertedCredential {
    /// Returns the credential without the word before it.
    pub fn secret(&self) -> &str {
        self.value.rsplit_once(' ').map_or(self.value.as_str(), |(_, secret)| secret)
    }
}

/// Credentials for the upstream by id; the text is empty where secrets are left out.
pub(super) struct UpstreamCredentials(Vec<(String, String)>);

/// Loads the credentials.
pub(super) fn compile(
    documents: &List<UpstreamCredentialDocument>,
    loader: &SecretLoader<'_>,
    at: &Reader<'_>,
) -> UpstreamCredentials {
    let mut list: Vec<(String, String)> = Vec::new();
    for (at, document) in documents.each(at) {
        check_id(&document.id, &at.member("id"));
        let is_taken = list.iter().any(|(id, _)| *id == document.id);
        at.member("id").check_unique("credential id", &document.id, is_taken);
        let text = loader.load_text(&document.secret, &at.member("secret"));
        if text
            .as_ref()
            .is_some_and(|text| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            at.member("secret").refuse("expected visible ASCII without blanks");
        }
        // Without secrets a policy is checked, never used.
        list.push((document.id.clone(), text.unwrap_or_default()));
    }
    UpstreamCredentials(list)
}

impl RouteCredentialDocument {
    /// Compiles the credential of a route.
    pub(super) fn compile(
        &self,
        credentials: &UpstreamCredentials,
        at: &Reader<'_>,
    ) -> Option<InsertedCredential> {
        let place = RequestField::parse(&self.at);
        match &place {
            Some(RequestField::Header(name)) => check_header_name(name, &at.member("at")),
            Some(RequestField::Query(_)) if self.scheme.is_some() => {
                at.member("scheme").refuse("a scheme is for a header");
            }
            Some(RequestField::Query(_)) => {}
            _ => at.member("at").refuse("expected `query:name` or `header:name`"),
        }
        let ids = credentials.0.iter().map(|(id, _)| id.as_str());
        at.member("key").check_listed(&self.key, "upstream_credentials", ids);
        let (_, text) = credentials.0.iter().find(|(id, _)| *id == self.key)?;
        let value = self.scheme.as_ref().map_or_else(|| text.clone(), |scheme| format!("{scheme} {text}"));
        Some(InsertedCredential { place: place?, value })
    }
}
