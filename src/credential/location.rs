//! Locations of credentials in a request.

/// A header or query parameter that may carry a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialLocation {
    /// A header of the request.
    Header {
        /// Header name in lower case.
        name: String,
        /// Authentication scheme before the credential, compared without regard to case (RFC 9110 section 11.1).
        scheme: Option<String>,
    },
    /// A query parameter, for clients that cannot set headers, such as a browser's WebSocket.
    Query {
        /// Name of the parameter.
        name: String,
    },
}

impl CredentialLocation {
    /// Returns the name of the header; `None` for a query parameter.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Query { .. } => None,
        }
    }

    /// Returns the name of the query parameter; `None` for a header.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Header { .. } => None,
            Self::Query { name } => Some(name),
        }
    }
}

/// Locations that matter to one request.
#[derive(Clone, Copy)]
pub struct CredentialLocations<'p> {
    /// Locations the route accepts.
    pub accepted: &'p [CredentialLocation],
    /// Locations of the section `credentials` on a route that has its own; a credential in one of them is one too many.
    pub foreign: &'p [CredentialLocation],
    /// Test for a text that holds a credential of this policy.
    pub holds_credential: &'p dyn Fn(&[u8]) -> bool,
}
