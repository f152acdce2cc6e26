//! Section `credentials`: formats of API keys, and places of the credential in a request.

use super::ids::{check_header_name, check_prefix, is_token};
use super::reader::{List, Reader, document, words};
use crate::credential::{Alphabet, CredentialLocation, KeyFormat};

document! {
    /// Formats of API keys, and places of the credential in a request.
    pub struct CredentialsDocument {
        /// Formats of API keys.
        api_key_formats: List<KeyFormatDocument>,
        /// Places of the credential; a request has exactly one, in exactly one of these.
        locations: List<LocationDocument>,
        /// True when the client's credential is sent on to the upstream; default false.
        forward_credential: bool = false,
    }
}

document! {
    /// One format of API key.
    pub struct KeyFormatDocument {
        /// Beginning of each key: 3 to 32 of `A-Z a-z 0-9 - _`, or empty (one format at most).
        prefix: String,
        /// Characters after the prefix.
        alphabet: AlphabetWord,
        /// Number of characters after the prefix.
        length: LengthDocument,
    }
}

document! {
    /// Number of characters after a key's prefix.
    pub struct LengthDocument {
        /// The fewest, at least 16.
        min: u64,
        /// The most, at most 512.
        max: u64,
    }
}

words! {
    /// Characters after a key's prefix.
    pub enum AlphabetWord {
        /// Hex digits in lower case, `0-9 a-f`.
        Hex = "hex",
        /// `0-9 A-Z a-z`.
        Alphanumeric = "alphanumeric",
        /// `0-9 A-Z a-z - _`.
        Base64url = "base64url",
    }
}

document! {
    /// A place of the credential: a header or a query parameter.
    pub struct LocationDocument {
        /// Name of the header in lower case; this or `query`.
        header: Option<String>,
        /// Word before the credential in that header, as in `Bearer`.
        scheme: Option<String>,
        /// Name of the query parameter; only on single routes. It is removed before the upstream.
        query: Option<String>,
    }
}

/// Compiled section `credentials`.
#[derive(Default)]
pub(super) struct Credentials {
    pub(super) locations: Vec<CredentialLocation>,
    pub(super) key_formats: Vec<KeyFormat>,
    pub(super) forward: bool,
}

impl CredentialsDocument {
    pub(super) fn compile(&self, at: &Reader<'_>) -> Credentials {
        let (formats_at, locations_at) = (at.member("api_key_formats"), at.member("locations"));
        let key_formats =
            self.api_key_formats.each(&formats_at).map(|(at, format)| format.compile(&at)).collect();
        for (at, _) in self.locations.each(&locations_at).filter(|(_, location)| location.query.is_some()) {
            at.refuse_with(
                "a credential in the query is for single routes",
                "name it in `credential_locations` of these routes",
            );
        }
        let locations = compile_locations(&self.locations, &locations_at);
        Credentials { locations, key_formats, forward: self.forward_credential }
    }
}

impl KeyFormatDocument {
    fn compile(&self, at: &Reader<'_>) -> KeyFormat {
        let LengthDocument { min, max } = self.length;
        if min < 16 || max < min || max > 512 {
            at.member("length").refuse("expected 16 <= min <= max <= 512 characters");
        }
        // Keys of some platforms have no prefix; one format may then be length and alphabet alone.
        if !self.prefix.is_empty() {
            check_prefix(&self.prefix, &at.member("prefix"));
        }
        KeyFormat {
            prefix: self.prefix.clone(),
            alphabet: match self.alphabet {
                AlphabetWord::Hex => Alphabet::Hex,
                AlphabetWord::Alphanumeric => Alphabet::Alphanumeric,
                AlphabetWord::Base64url => Alphabet::Base64Url,
            },
            min: usize::try_from(min).unwrap_or(usize::MAX),
            max: usize::try_from(max).unwrap_or(0),
        }
    }
}

/// Compiles a list of credential locations.
pub(super) fn compile_locations(list: &List<LocationDocument>, at: &Reader<'_>) -> Vec<CredentialLocation> {
    let mut locations: Vec<CredentialLocation> = Vec::new();
    for (at, document) in list.each(at) {
        let Some(location) = document.compile(&at) else { continue };
        let is_same = |other: &CredentialLocation| {
            other.header() == location.header() && other.parameter() == location.parameter()
        };
        if locations.iter().any(is_same) {
            at.refuse("duplicate credential location");
        }
        locations.push(location);
    }
    locations
}

impl LocationDocument {
    fn compile(&self, at: &Reader<'_>) -> Option<CredentialLocation> {
        match (&self.header, &self.query) {
            (Some(name), None) => {
                check_header_name(name, &at.member("header"));
                if self.scheme.as_ref().is_some_and(|scheme| !is_token(scheme)) {
                    at.member("scheme").refuse("expected one word, as in `Bearer`");
                }
                Some(CredentialLocation::Header { name: name.clone(), scheme: self.scheme.clone() })
            }
            (None, Some(name)) if self.scheme.is_none() && is_token(name) => {
                Some(CredentialLocation::Query { name: name.clone() })
            }
            _ => {
                at.refuse("expected `header`, with or without `scheme`, or `query`");
                None
            }
        }
    }
}
