//! Headers that a policy reads: credentials of clients, judged values, and those that carry the platform's own credential.

use super::fields::RequestField;
use super::route::Route;
use super::routes::Routes;
use crate::credential::CredentialLocation;
use crate::header::is_look_alike;

/// Names of the headers that a policy reads or sets a credential in, in lower case, each once.
#[derive(Debug, Default)]
pub struct ReadHeaders {
    /// Headers that may carry a client's credential.
    credentials: Vec<String>,
    /// Headers with a judged value or with the platform's own credential.
    values: Vec<String>,
}

impl ReadHeaders {
    pub(super) fn of(locations: &[CredentialLocation], routes: &Routes) -> Self {
        let of_routes = routes.iter().flat_map(|route| route.locations.iter().flatten());
        let inserted = routes.iter().filter_map(|route| Some(&route.upstream_credential.as_ref()?.place));
        let places = routes.iter().flat_map(Route::places).chain(inserted);
        let of_values = places.filter_map(|place| match place {
            RequestField::Header(name) => Some(name.as_str()),
            _ => None,
        });
        Self {
            credentials: unique(locations.iter().chain(of_routes).filter_map(CredentialLocation::header)),
            values: unique(of_values),
        }
    }

    /// Returns the headers that may carry a client's credential.
    pub fn credentials(&self) -> &[String] {
        &self.credentials
    }

    /// Returns whether the policy reads a header. `name` is in lower case.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.all().any(|read| read.as_bytes() == name)
    }

    /// Returns whether an upstream could take a header for one that may carry a client's credential.
    pub fn is_like_credential(&self, name: &[u8]) -> bool {
        self.credentials.iter().any(|read| is_look_alike(name, read))
    }

    /// Returns whether an upstream could take a header for one that the policy reads.
    pub fn is_like_any(&self, name: &[u8]) -> bool {
        !self.contains(name) && self.all().any(|read| is_look_alike(name, read))
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.credentials.iter().chain(&self.values)
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.iter().any(|known| known == name) {
            unique.push(name.to_owned());
        }
    }
    unique
}
