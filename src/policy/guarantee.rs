//! The guarantee sheet: what a policy enforces on its host, and how strongly.
//!
//! For the operator, once at load and by `callbound guarantees`. It says nothing that the compiler has not checked: what
//! a host cannot do was refused there.

use std::fmt;

use super::accept::Accept;
use super::compiled::Policy;
use super::host::{End, Hold, SharedMemory};
use super::limits::{Counts, Measure};
use super::route::{LocalReply, Route};
use super::store::StoreBackend;

/// One thing that is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// What.
    pub subject: &'static str,
    /// How strongly.
    pub force: Enforcement,
    /// How, and what it hangs on.
    pub text: String,
}

/// How strongly something is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// By callbound itself, at every request.
    Exact,
    /// As long as the host is set up as the text says.
    Host,
    /// Over all workers of one gateway.
    Node,
    /// Over all gateways that use one store.
    Fleet,
    /// By the upstream, which is told.
    Upstream,
    /// Not at all.
    None,
}

impl Enforcement {
    /// The word in logs.
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
        write!(f, "{} ({}): {}", self.subject, self.force.as_str(), self.text)
    }
}

/// Computes the sheet of a policy.
pub fn guarantees(policy: &Policy) -> Vec<Guarantee> {
    let sheet = [
        Some(verdict_first(policy)),
        Some(bounds(policy)),
        Some(paths(policy)),
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

fn guarantee(subject: &'static str, force: Enforcement, text: impl Into<String>) -> Guarantee {
    Guarantee { subject, force, text: text.into() }
}

fn verdict_first(policy: &Policy) -> Guarantee {
    let text = match policy.hold {
        _ if !policy.routes.iter().any(Route::reads_body) => {
            return guarantee(
                "verdict first",
                Enforcement::Exact,
                "no route reads a body; headers wait for their verdict",
            );
        }
        Hold::Module => {
            "headers and body are held until the verdict. Needs `allow_on_headers_stop_iteration: true`; without it \
             requests that wait for a body end in 503, and nothing leaves"
        }
        Hold::FilterBehind => {
            "the body is held until the verdict, the headers by the buffer filter that must stand behind callbound. \
             Without it, or with it before callbound, the headers of a refused request would reach the upstream, stripped \
             of credentials; its body never"
        }
        Hold::Host => {
            "the host reads the whole body before it connects to the upstream. A body without `content-length` is \
             refused (411), one above `client_body_buffer_size` too (413): set it as high as `client_max_body_size`. \
             Nothing may answer or proxy before callbound: in Kong no plugin with a `response` handler and no \
             `enable_buffering`"
        }
        Hold::HostOnRequest => {
            "the host reads the whole body, when callbound asks for it, before it connects to the upstream; \
             `client_max_body_size` bounds it"
        }
    };
    guarantee("verdict first", Enforcement::Host, text)
}

fn bounds(policy: &Policy) -> Guarantee {
    let trailers = match policy.hold {
        Hold::Module | Hold::FilterBehind => "trailers are stripped of what only callbound may say",
        Hold::Host | Hold::HostOnRequest => "trailers are not shown to callbound, and the host sends none on",
    };
    guarantee(
        "credentials and bounds",
        Enforcement::Exact,
        format!("platform, team, key and token are judged anew at every request; {trailers}"),
    )
}

fn paths(policy: &Policy) -> Guarantee {
    match policy.host.target {
        Some(_) => guarantee(
            "paths",
            Enforcement::Host,
            "judged as the client wrote them, not as the host decoded them; every spelling but one is refused. Must not \
             be rewritten before callbound",
        ),
        None => guarantee(
            "paths",
            Enforcement::Exact,
            "judged as the host shows them, in one spelling; every other is refused",
        ),
    }
}

/// How far what is remembered reaches, and what becomes of it at a restart.
fn of_home(policy: &Policy, after_restart: &str) -> (Enforcement, String) {
    match (&policy.store.home, policy.host.memory) {
        (StoreBackend::Redis(_), _) => {
            (Enforcement::Fleet, "by the Redis that all gateways share; 503 without its answer".into())
        }
        (StoreBackend::Memory, SharedMemory::Evicted) => (
            Enforcement::Node,
            format!(
                "by all workers of this gateway together, each gateway for itself, in the shared memory zone `callbound` \
                 ({} MiB, `eviction=none`): what it dropped is noticed and answered 503; {after_restart}, and so after \
                 another `store.entries`",
                zone_mebibytes(policy.store.size.entries)
            ),
        ),
        (StoreBackend::Memory, _) => (
            Enforcement::Node,
            format!("by all workers of this gateway together, each gateway for itself; {after_restart}"),
        ),
    }
}

/// Mebibytes of a zone in which two stores of so many entries have room, as after a change of the store's secret. nginx
/// gives whole pages of 4 KiB to what is above half of one, and powers of two to the rest.
fn zone_mebibytes(entries: usize) -> usize {
    const SESSIONS_AND_FAILURES: usize = 256 * 4_096 + 256 * 2_048 + (128 << 10);
    let value = entries / 4_096 * 32 + 160;
    let block = if value > 2_048 { value.next_multiple_of(4_096) } else { value.next_power_of_two() };
    (2 * (4_096 * block + SESSIONS_AND_FAILURES)).div_ceil(1 << 20).max(16)
}

fn uses(policy: &Policy) -> Option<Guarantee> {
    let (force, text) = of_home(policy, "after a restart tokens from before it are refused");
    policy
        .routes
        .iter()
        .any(Route::counts_uses)
        .then(|| guarantee("uses of tokens", force, format!("each spent once, counted {text}")))
}

fn limits(policy: &Policy) -> Option<Guarantee> {
    let counted = policy.limits.list.iter().filter(|limit| limit.counts != Counts::Failures);
    let names: Vec<&str> = counted.map(|limit| limit.id.as_str()).collect();
    let (force, text) = of_home(policy, "after a restart windows begin anew");
    (!names.is_empty())
        .then(|| guarantee("limits", force, format!("`{}`, counted {text}", names.join("`, `"))))
}

fn failures(policy: &Policy) -> Option<Guarantee> {
    let counts = |counts: Counts| counts == Counts::Failures;
    policy.limits.list.iter().any(|limit| counts(limit.counts)).then(|| {
        guarantee(
            "limits of failures",
            Enforcement::Node,
            "counted by the address that the host says is the client's, over all workers of this gateway, whatever the \
             store; one more may pass for each worker",
        )
    })
}

fn revocation(policy: &Policy) -> Guarantee {
    let by_request = policy.routes.iter().any(|route| matches!(route.local, Some(LocalReply::Revoke(_))));
    match &policy.store.home {
        StoreBackend::Redis(_) => guarantee(
            "revocation",
            Enforcement::Fleet,
            format!(
                "by the policy at once; by a request at every gateway within {} s and a second; {} when nothing was heard for {} s",
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
        (true, true) => "; how many are open is counted, and a lost place comes back within 15 s",
        (true, false) => {
            "; how many are open is counted, but those of a worker that is replaced only for 15 s: set \
             `worker_shutdown_timeout`"
        }
    };
    Some(match (policy.ends_sessions, policy.host.ends_streams) {
        (false, _) => guarantee(
            "sessions",
            Enforcement::Upstream,
            format!(
                "the upstream is told the limit in `x-callbound-session-seconds` and must end them{counted}"
            ),
        ),
        (true, true) => {
            guarantee("sessions", Enforcement::Exact, format!("ended by the gateway at their limit{counted}"))
        }
        (true, false) => {
            guarantee("sessions", Enforcement::None, format!("never ended: none is limited{counted}"))
        }
    })
}

fn randomness(policy: &Policy) -> Option<Guarantee> {
    let mints = policy.routes.iter().any(|route| route.mint().is_some());
    mints.then(|| match policy.host.has_entropy {
        true => guarantee("randomness of tokens", Enforcement::Exact, "the operating system's"),
        false => guarantee(
            "randomness of tokens",
            Enforcement::Host,
            "derived from the secret `entropy`, the time and a counter: the host's own can be guessed",
        ),
    })
}

fn issuers(policy: &Policy) -> Option<Guarantee> {
    let fetched = policy.issuers.iter().any(|issuer| issuer.keys.remote().is_some());
    fetched.then(|| match policy.host.calls_addresses {
        false => guarantee(
            "issuers' keys",
            Enforcement::Host,
            "fetched through the cluster that the policy names, whose TLS settings decide whom they are believed from",
        ),
        true => guarantee(
            "issuers' keys",
            Enforcement::Host,
            "fetched from the URL. The host checks no certificate unless it is told to \
             (`nginx_wasm_tls_verify_cert`, `nginx_wasm_tls_verify_host`, `nginx_wasm_tls_trusted_certificate`)",
        ),
    })
}

fn waiting(policy: &Policy) -> Guarantee {
    match policy.host.ends_streams {
        true => guarantee(
            "waiting",
            Enforcement::Exact,
            format!("a request whose body does not come is answered after {} s", policy.hold_seconds),
        ),
        false => guarantee(
            "waiting",
            Enforcement::Host,
            "`client_body_timeout` of the host ends a body that does not come",
        ),
    }
}

fn refused_policy(policy: &Policy) -> Guarantee {
    let text = match (policy.host.keeps_refused, policy.host.end) {
        (false, _) => {
            "a policy that does not load refuses every request (503): the host would otherwise serve without it"
        }
        (true, End::Announced) => {
            "a policy that does not load is refused, and the one before it stays; without one no request passes"
        }
        (true, _) => "a policy that does not load answers every request of its route with 503",
    };
    guarantee("a wrong policy", Enforcement::Exact, text)
}
