//! Reasons for refusing a request: one stable snake_case code per cause.
//!
//! The same code names the metric, fills the field in the log and is expected by the tests. It is for the operator; the
//! client reads the coarser public code of the policy's envelope.

use std::fmt;

/// Default answer to a reason; a policy may replace it.
struct Answer {
    status: u16,
    message: &'static str,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:literal, $message:literal;)+) => {
        /// The one cause that decided a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the stable code.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            fn answer(self) -> Answer {
                match self {
                    $(Self::$variant => Answer { status: $status, message: $message },)+
                }
            }
        }
    };
}

reasons! {
    /// No route has this path and method.
    RouteNotFound = "route_not_found", 404, "there is no such route";
    /// Path that two readers could read differently.
    PathMalformed = "path_malformed", 400, "the path is malformed";
    /// A required header is missing, repeated or unreadable.
    RequestMalformed = "request_malformed", 400, "the request is malformed";
    /// More headers than the host can pass on.
    HeadersTooMany = "headers_too_many", 431, "there are too many headers";
    /// Upgrade on a route that accepts none.
    UpgradeRefused = "upgrade_refused", 400, "this route cannot be upgraded";
    /// Request without an upgrade on a route that requires one.
    UpgradeRequired = "upgrade_required", 426, "this route is a WebSocket handshake";
    /// No credential where the policy looks for one.
    CredentialMissing = "credential_missing", 401, "a valid credential is required";
    /// More than one credential.
    CredentialMultiple = "credential_multiple", 400, "send exactly one credential";
    /// Credential in a place that is written to logs.
    CredentialMisplaced = "credential_misplaced", 400, "a credential must not stand in the query";
    /// Credential in no format of the policy.
    CredentialMalformed = "credential_malformed", 401, "a valid credential is required";
    /// Authentication scheme the policy does not name.
    CredentialScheme = "credential_scheme", 401, "a valid credential is required";
    /// Credential longer than any that is minted.
    CredentialTooLong = "credential_too_long", 401, "a valid credential is required";
    /// Credential of a kind the route does not accept.
    CredentialNotAccepted = "credential_not_accepted", 403, "this kind of credential is not accepted here";
    /// No such API key.
    KeyUnknown = "key_unknown", 401, "a valid credential is required";
    /// The API key, or the key a token was minted from, is revoked.
    KeyRevoked = "key_revoked", 401, "a valid credential is required";
    /// The API key, or the key a token was minted from, has expired.
    KeyExpired = "key_expired", 401, "a valid credential is required";
    /// The token is malformed.
    TokenMalformed = "token_malformed", 401, "a valid credential is required";
    /// The token names a key that its family or issuer does not have.
    TokenKid = "token_kid_unknown", 401, "a valid credential is required";
    /// The token's algorithm is not its key's.
    TokenAlgorithm = "token_algorithm", 401, "a valid credential is required";
    /// The token is of another family.
    TokenType = "token_type", 401, "a valid credential is required";
    /// The token's signature does not hold.
    TokenSignature = "token_signature", 401, "a valid credential is required";
    /// A claim is missing, mistyped or impossible.
    TokenClaims = "token_claims", 401, "a valid credential is required";
    /// The token is of another issuer.
    TokenIssuer = "token_issuer", 401, "a valid credential is required";
    /// The token is for another audience.
    TokenAudience = "token_audience", 401, "a valid credential is required";
    /// The token has expired.
    TokenExpired = "token_expired", 401, "a valid credential is required";
    /// The token is not valid yet.
    TokenNotYetValid = "token_not_yet_valid", 401, "a valid credential is required";
    /// The token claims to live longer than its family allows.
    TokenLifetime = "token_lifetime", 401, "a valid credential is required";
    /// The key the token was minted from has another owner now, or was deleted.
    TokenOwner = "token_owner", 401, "a valid credential is required";
    /// The token was revoked before its time.
    TokenRevoked = "token_revoked", 401, "a valid credential is required";
    /// The token has no uses left.
    TokenSpent = "token_spent", 401, "a valid credential is required";
    /// The token was issued before the store's records begin, so it may have been used.
    TokenForgotten = "token_forgotten", 401, "a valid credential is required";
    /// The token's sessions together have reached their total seconds.
    SecondsSpent = "seconds_spent", 403, "the seconds of this credential are used up";
    /// A feature the route needs is off.
    FeatureOff = "feature_off", 403, "this feature is not enabled";
    /// A scope the route needs is missing.
    ScopeMissing = "scope_missing", 403, "a required scope is missing";
    /// The request names a team out of the credential's reach.
    TenantDenied = "tenant_denied", 403, "this resource is out of reach for this credential";
    /// The body is not declared as `application/json`.
    BodyType = "body_type", 415, "the body must be application/json";
    /// The body is compressed or otherwise encoded.
    BodyEncoding = "body_encoding", 415, "the body must not be encoded";
    /// There is no body.
    BodyMissing = "body_missing", 400, "a JSON body is required";
    /// The body is not one JSON object.
    BodyMalformed = "body_malformed", 400, "the body must be one JSON object";
    /// Two members of one object have one name.
    BodyDuplicate = "body_duplicate_member", 400, "a member stands twice in the body";
    /// The body holds more values than are read, or is larger than the host can pass on.
    BodyTooLarge = "body_too_large", 413, "the body is too large";
    /// The body has no `content-length`, on a host that requires it.
    LengthRequired = "length_required", 411, "the body must come with content-length";
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", 408, "the body did not arrive in time";
    /// Another reader could take a member for a caller ID or destination.
    MemberAmbiguous = "member_ambiguous", 400, "a member is ambiguous";
    /// Member the route does not know.
    MemberUnknown = "member_unknown", 400, "a member is unknown";
    /// Member the route requires is missing.
    MemberMissing = "member_missing", 400, "a required member is missing";
    /// A member of the wrong type.
    MemberType = "member_type", 400, "a member has the wrong type";
    /// A number outside its range.
    MemberRange = "member_range", 400, "a number is outside its range";
    /// A number that is not canonical E.164.
    NumberMalformed = "number_malformed", 400, "numbers are written as +15551234567 (E.164)";
    /// The caller ID is not an active number of the key's owner.
    FromNotOwned = "from_not_owned", 403, "the caller ID is not an active number of yours";
    /// The caller ID is outside the key's ceiling.
    FromCeiling = "from_ceiling", 403, "the caller ID is outside the bounds of this credential";
    /// The caller ID is outside the token's bounds.
    FromDenied = "from_denied", 403, "the caller ID is outside the bounds of this credential";
    /// The caller ID is bounded and this request does not name it.
    FromUnreadable = "from_unreadable", 403, "a bounded credential must name its caller ID here";
    /// The destination is outside the key's ceiling.
    ToCeiling = "to_ceiling", 403, "the destination is outside the bounds of this credential";
    /// The destination is outside the token's bounds.
    ToDenied = "to_denied", 403, "the destination is outside the bounds of this credential";
    /// The destination is bounded and this request does not name it.
    ToUnreadable = "to_unreadable", 403, "a bounded credential must name its destination here";
    /// An emergency number.
    NumberEmergency = "number_emergency", 403, "emergency numbers cannot be reached here";
    /// A premium-rate destination that no bound allows explicitly.
    ToPremium = "to_premium", 403, "this destination must be allowed explicitly";
    /// A value outside the token's bounds.
    BoundDenied = "bound_denied", 403, "a value is outside the bounds of this credential";
    /// A value outside the ceiling of the key or of a team above it.
    BoundCeiling = "bound_ceiling", 403, "a value is outside the bounds of this credential";
    /// Value that the platform does not define.
    BoundUnknown = "bound_unknown", 403, "a value is not one of those there are";
    /// A value is bounded and this request does not name it.
    BoundUnreadable = "bound_unreadable", 403, "a bounded credential must say this value here";
    /// Endpoint that does not exist or is out of the credential's reach.
    EndpointUnknown = "endpoint_unknown", 400, "there is no such endpoint";
    /// Endpoint without the capability the route requires.
    EndpointIncapable = "endpoint_incapable", 400, "this endpoint is not capable of this";
    /// Endpoint that is archived and takes no new sessions.
    EndpointArchived = "endpoint_archived", 409, "this endpoint takes no new sessions";
    /// Origin from which the endpoint must not be called.
    EndpointOrigin = "endpoint_origin", 403, "this endpoint cannot be reached from here";
    /// Address from which the endpoint must not be called.
    EndpointAddress = "endpoint_address", 403, "this endpoint cannot be reached from here";
    /// A list of the mint request is empty or too long.
    MintListSize = "mint_list_size", 400, "a list has too few or too many entries";
    /// The requested lifetime is outside its range.
    MintTtl = "mint_ttl", 400, "the lifetime is outside its range";
    /// The requested longest session is outside its range.
    MintSession = "mint_session", 400, "the longest session is outside its range";
    /// The metadata is not an object, or too large.
    MintMetadata = "mint_metadata", 400, "the metadata must be a small object";
    /// A text that cannot be a value of the bound.
    MintValue = "mint_value", 400, "a value is malformed";
    /// A scope the minting key does not hold.
    MintScopeNotHeld = "mint_scope_not_held", 403, "a scope is not held by this credential";
    /// A scope no token may carry.
    MintScopeRefused = "mint_scope_refused", 403, "a scope cannot be given to a token";
    /// The token would be longer than a credential may be.
    MintTooLong = "mint_too_long", 400, "the token would be too long; ask for fewer values";
    /// No key signed the token.
    MintUnavailable = "mint_unavailable", 503, "tokens cannot be minted at the moment";
    /// A limit of requests is reached.
    LimitReached = "limit_reached", 429, "too many requests";
    /// A limit of open sessions is reached.
    SessionsReached = "sessions_reached", 429, "too many open sessions";
    /// Too many bad credentials came from this address.
    FailuresReached = "failures_reached", 429, "too many requests";
    /// The store failed or did not answer.
    StoreUnavailable = "store_unavailable", 503, "temporarily unavailable";
    /// Redis lacks the function that gateways call.
    StoreNotInstalled = "store_not_installed", 503, "temporarily unavailable";
    /// The store is full.
    StoreFull = "store_full", 503, "temporarily unavailable";
    /// The list of revocations is too old.
    RevocationsStale = "revocations_stale", 503, "temporarily unavailable";
    /// An issuer's keys could not be fetched.
    KeysUnavailable = "keys_unavailable", 503, "temporarily unavailable";
    /// The host's clock is not set.
    ClockUnset = "clock_unset", 503, "temporarily unavailable";
    /// The host cannot hold a request until its body is judged.
    HoldUnavailable = "hold_unavailable", 503, "temporarily unavailable";
    /// A host call failed.
    HostError = "host_error", 503, "temporarily unavailable";
}

impl Reason {
    /// Finds a reason by its code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
    }

    /// Returns the default HTTP status.
    pub fn status(self) -> u16 {
        self.answer().status
    }

    /// Returns the default public message, the same for every fault of a credential.
    pub fn message(self) -> &'static str {
        self.answer().message
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_snake_case() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn bad_credentials_have_one_message() {
        let messages: Vec<_> =
            Reason::ALL.iter().filter(|r| r.status() == 401).map(|r| r.message()).collect();
        assert!(messages.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
