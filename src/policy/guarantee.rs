//! Guarantee sheet: the effects of a policy on its host, and the strength of their enforcement.
//!
//! Operators see it at load and with `callbound guarantees`. The compiler has already refused features the host lacks.

use std::fmt;

use super::accept::Accept;
use super::compiled::Policy;
use super::host::{End, Hold, SharedMemory};
use super::limits::{Counts, Measure};
use super::route::{LocalReply, Route};
use super::store::StoreBackend;

/// One line of the sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// Subject, such as `limits`.
    pub subject: &'static str,
    /// Strength of the enforcement.
    pub enforcement: Enforcement,
    /// Effect, and the settings it depends on.
    pub text: String,
}

/// Strength of an enforcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// By callbound itself, at every request.
    Exact,
    /// By the host, if it is configured as the text requires.
    Host,
    /// Across all workers of one gateway.
    Node,
    /// Across all gateways that share one store.
    Fleet,
    /// By the upstream, which receives the limit.
    Upstream,
    /// Not at all.
    None,
}

impl Enforcement {
    /// Returns the word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Host => "host",
            Self::Node => "node",
            Self::Fleet => "fleet",
            Self::Upstream => "upstream",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.subject, self.enforcement.as_str(), self.text)
    }
}

/// Computes the sheet of a policy.
pub fn guarantees(policy: &Policy) -> Vec<Guarantee> {
    let sheet = [
        Some(decision_first(policy)),
        Some(bounds(policy)),
        Some(paths(policy)),
        Some(headers(policy)),
        query_in_log(policy),
        uses(policy),
        limits(policy),
        failures(policy),
        Some(revocation(policy)),
        sessions(policy),
        randomness(policy),
        issuers(policy),
        Some(waiting(policy)),
        Some(refused_policy(policy)),
    ];
    sheet.into_iter().flatten().collect()
}

fn guarantee(subject: &'static str, enforcement: Enforcement, text: impl Into<String>) -> Guarantee {
    Guarantee { subject, enforcement, text: text.into() }
}

fn decision_first(policy: &Policy) -> Guarantee {
    let text = match policy.hold {
        _ if !policy.routes.iter().any(Route::reads_body) => {
            return guarantee(
                "decision first",
                Enforcement::Exact,
                "no route reads a body; headers are held until the decision",
            );
        }
        Hold::Module => {
            "headers and body are held until the decision. Needs `allow_on_headers_stop_iteration: true`; without it \
             requests that wait for a body end in 503, and nothing reaches the upstream"
        }
        Hold::FilterBehind => {
            "the body is held until the decision, the headers by the buffer filter, which must come after callbound. \
             Without it, or with it before callbound, the headers of a refused request would reach the upstream \
             without credentials; its body never does"
        }
        Hold::Host => {
            "the host reads the whole body before it connects to the upstream. A body without `content-length` is \
             refused (411), and so is one above `client_body_buffer_size` (413): set that as high as \
             `client_max_body_size`. Nothing may answer or proxy before callbound: in Kong, use no plugin with a \
             `response` handler and no `enable_buffering`"
        }
        Hold::HostOnRequest => {
            "the host reads the whole body, when callbound asks for it, before it connects to the upstream; \
             `client_max_body_size` limits its size"
        }
    };
    guarantee("decision first", Enforcement::Host, text)
}

fn bounds(policy: &Policy) -> Guarantee {
    let trailers = match policy.hold {
        Hold::Module | Hold::FilterBehind => {
            "trailers lose reserved headers, credentials and the headers that the policy reads"
        }
        Hold::Host | Hold::HostOnRequest => "the host shows no trailers to callbound, and forwards none",
    };
    guarantee(
        "credentials and bounds",
        Enforcement::Exact,
        format!("platform, team, key and token are checked at every request; {trailers}"),
    )
}

fn paths(policy: &Policy) -> Guarantee {
    match policy.host.target {
        Some(_) => guarantee(
            "paths",
            Enforcement::Host,
            "judged as the client wrote them, not as the host decoded them; every spelling but one is refused. Nothing \
             may rewrite them before callbound",
        ),
        None => guarantee(
            "paths",
            Enforcement::Exact,
            "judged as the host shows them; every spelling but one is refused",
        ),
    }
}

fn headers(policy: &Policy) -> Guarantee {
    let (enforcement, text) = match (policy.host.removes_headers, policy.forward_credential) {
        (true, true) => (Enforcement::Exact, "a client's headers lose those that only callbound sets"),
        (true, false) => {
            (Enforcement::Exact, "a client's headers lose its credential and those that only callbound sets")
        }
        (false, true) => (
            Enforcement::Exact,
            "this host cannot remove a header: a request with one that only callbound sets, in any spelling, is refused",
        ),
        (false, false) => (
            Enforcement::Host,
            "this host cannot remove a header: the upstream sees the header of a credential without its value, unless \
             `callbound-headers.conf` drops it; a request with a header that only callbound sets, in any spelling, or that \
             repeats a header that callbound changes, is refused",
        ),
    };
    guarantee("headers for the upstream", enforcement, text)
}

fn query_in_log(policy: &Policy) -> Option<Guarantee> {
    (policy.host.logs_requests && policy.reads_credentials_in_query()).then(|| {
        guarantee(
            "credentials in the query",
            Enforcement::None,
            "when an upstream fails, this host writes the request's first line with its query, and so the credential, into \
             its error log",
        )
    })
}

/// Returns the reach of counts in the policy's store, and its description for the sheet. `afterwards` says what a lost
/// memory means.
fn backend_guarantee(policy: &Policy, afterwards: &str) -> (Enforcement, String) {
    match (&policy.store.backend, policy.host.memory) {
        (StoreBackend::Redis(_), _) => {
            (Enforcement::Fleet, "in the Redis that all gateways share; 503 when it does not answer".into())
        }
        (StoreBackend::Memory, SharedMemory::Evicted) => (
            Enforcement::Node,
            format!(
                "by all workers of this gateway together, each gateway for itself, in the shared memory zone `callbound` \
                 ({} MiB, `eviction=none`): a dropped entry is noticed and answered with 503; after a restart, a reload \
                 of the host's configuration or a change of `store.entries`, {afterwards}",
                zone_mebibytes(policy.store.size.entries)
            ),
        ),
        (StoreBackend::Memory, _) => (
            Enforcement::Node,
            format!(
                "by all workers of this gateway together, each gateway for itself; after a restart, {afterwards}"
            ),
        ),
    }
}

/// Returns the size, in MiB, of a zone with room for two stores of `entries` entries, as after a change of the store's
/// secret. nginx allocates whole pages of 4 KiB for blocks above half a page, and powers of two for smaller ones.
fn zone_mebibytes(entries: usize) -> usize {
    const SESSIONS_AND_FAILURES: usize = 256 * 4_096 + 256 * 2_048 + (128 << 10);
    let value = entries / 4_096 * 32 + 160;
    let block = if value > 2_048 { value.next_multiple_of(4_096) } else { value.next_power_of_two() };
    (2 * (4_096 * block + SESSIONS_AND_FAILURES)).div_ceil(1 << 20).max(16)
}

fn uses(policy: &Policy) -> Option<Guarantee> {
    let (enforcement, text) = backend_guarantee(policy, "older tokens are refused");
    policy
        .routes
        .iter()
        .any(Route::counts_uses)
        .then(|| guarantee("uses of tokens", enforcement, format!("each use is spent once, counted {text}")))
}

fn limits(policy: &Policy) -> Option<Guarantee> {
    let counted = policy.limits.list.iter().filter(|limit| limit.counts != Counts::Failures);
    let names: Vec<&str> = counted.map(|limit| limit.id.as_str()).collect();
    let (enforcement, text) = backend_guarantee(policy, "windows begin again");
    (!names.is_empty())
        .then(|| guarantee("limits", enforcement, format!("`{}`, counted {text}", names.join("`, `"))))
}

fn failures(policy: &Policy) -> Option<Guarantee> {
    let counts = |counts: Counts| counts == Counts::Failures;
    policy.limits.list.iter().any(|limit| counts(limit.counts)).then(|| {
        guarantee(
            "limits of failures",
            Enforcement::Node,
            "counted by the client address that the host reports, across all workers of this gateway, with any store; \
             one more may pass for each worker",
        )
    })
}

fn revocation(policy: &Policy) -> Guarantee {
    let by_request = policy.routes.iter().any(|route| matches!(route.local, Some(LocalReply::Revoke(_))));
    match &policy.store.backend {
        StoreBackend::Redis(_) => guarantee(
            "revocation",
            Enforcement::Fleet,
            format!(
                "by the policy at once; by a request at every gateway within {} s and a second; requests are {} when \
                 revocations could not be refreshed for {} s",
                policy.store.refresh,
                if policy.store.refuses_when_stale { "refused" } else { "served" },
                policy.store.stale
            ),
        ),
        StoreBackend::Memory if by_request => guarantee(
            "revocation",
            Enforcement::Node,
            "by the policy at once; by a request at once at this gateway, until its process ends",
        ),
        StoreBackend::Memory => {
            guarantee("revocation", Enforcement::Exact, "by the policy, at the next request")
        }
    }
}

fn sessions(policy: &Policy) -> Option<Guarantee> {
    let opens = |route: &Route| route.is_upgrade && route.accept != Accept::Public;
    if !policy.routes.iter().any(opens) {
        return None;
    }
    let counted = policy.limits.list.iter().any(|limit| matches!(limit.measure, Measure::Sessions { .. }));
    let counted = match (counted, policy.host.ends_streams) {
        (false, _) => "",
        (true, true) => "; open sessions are counted, and a lost one is freed within 15 s",
        (true, false) => {
            "; open sessions are counted, but those of a replaced worker only for 15 s: set \
             `worker_shutdown_timeout`"
        }
    };
    Some(match (policy.ends_sessions, policy.host.ends_streams) {
        (false, _) => guarantee(
            "sessions",
            Enforcement::Upstream,
            format!(
                "the upstream receives the limit in `x-callbound-session-seconds` and must end them{counted}"
            ),
        ),
        (true, true) => {
            guarantee("sessions", Enforcement::Exact, format!("ended by the gateway at their limit{counted}"))
        }
        (true, false) => {
            guarantee("sessions", Enforcement::None, format!("never ended, since none has a limit{counted}"))
        }
    })
}

fn randomness(policy: &Policy) -> Option<Guarantee> {
    let mints = policy.routes.iter().any(|route| route.mint().is_some());
    mints.then(|| match policy.host.has_entropy {
        true => guarantee("randomness of tokens", Enforcement::Exact, "from the operating system"),
        false => guarantee(
            "randomness of tokens",
            Enforcement::Host,
            "derived from the secret `entropy`, the time and a counter: the host's own randomness can be guessed",
        ),
    })
}

fn issuers(policy: &Policy) -> Option<Guarantee> {
    let fetched = policy.issuers.iter().any(|issuer| issuer.keys.remote().is_some());
    fetched.then(|| match policy.host.calls_addresses {
        false => guarantee(
            "issuers' keys",
            Enforcement::Host,
            "fetched through the cluster that the policy names; its TLS settings decide which server is trusted",
        ),
        true => guarantee(
            "issuers' keys",
            Enforcement::Host,
            "fetched from the URL. The host verifies no certificate unless it is configured to \
             (`nginx_wasm_tls_verify_cert`, `nginx_wasm_tls_verify_host`, `nginx_wasm_tls_trusted_certificate`)",
        ),
    })
}

fn waiting(policy: &Policy) -> Guarantee {
    match policy.host.ends_streams {
        true => guarantee(
            "waiting",
            Enforcement::Exact,
            format!("a request whose body does not arrive is answered after {} s", policy.hold_seconds),
        ),
        false => guarantee(
            "waiting",
            Enforcement::Host,
            "`client_body_timeout` of the host ends a request whose body does not arrive",
        ),
    }
}

fn refused_policy(policy: &Policy) -> Guarantee {
    let text = match (policy.host.keeps_refused, policy.host.end) {
        (false, _) => {
            "a policy that does not load refuses every request (503); otherwise the host would serve without it"
        }
        (true, End::Announced) => {
            "a policy that does not load is refused, and the previous one stays; without one, no request passes"
        }
        (true, _) => "a policy that does not load answers every request of its route with 503",
    };
    guarantee("a refused policy", Enforcement::Exact, text)
}
