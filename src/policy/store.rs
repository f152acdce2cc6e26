//! Section `store`: backend and freshness of counts and revocations.

use core::net::Ipv6Addr;
use std::rc::Rc;

use super::host::{Profile, SharedMemory};
use super::ids::check_id;
use super::reader::{Reader, document, words};
use super::secrets::{Purpose, SecretDocument, SecretLoader};
use crate::credential::{Algorithm, Issuer, Key};
use crate::store::redis::RedisStore;
use crate::store::{Revocations, Size, Strength};

document! {
    /// Backend and freshness of counts and revocations.
    pub struct StoreDocument {
        /// Place of the store; default `memory`.
        backend: BackendWord = BackendWord::Memory,
        /// The most entries in this gateway's memory, 65,536 to 1,048,576; default 262,144.
        entries: Option<u64>,
        /// Secret that seals the entries in this gateway's memory.
        secret: Option<SecretDocument>,
        /// Connection to Redis; with `backend: "redis"`.
        redis: Option<RedisDocument>,
        /// Freshness of revocations; with `backend: "redis"`.
        revocations: Option<FeedDocument>,
        /// Look-up of API keys that are not in the policy; with `backend: "redis"`.
        directory: Option<DirectoryDocument>,
    }
}

words! {
    /// Place of the store.
    pub enum BackendWord {
        /// This gateway's memory.
        Memory = "memory",
        /// Redis, for all gateways.
        Redis = "redis",
    }
}

document! {
    /// Connection to Redis.
    pub struct RedisDocument {
        /// URL of Webdis, as in `http://127.0.0.1:7379`.
        url: String,
        /// The gateway's cluster that serves the URL; default `callbound_store`.
        cluster: Option<String>,
        /// Milliseconds an answer may take, 10 to 5,000; default 250.
        timeout_ms: u64 = 250,
        /// Beginning of every key in Redis; default `callbound:`.
        prefix: Option<String>,
        /// True when Redis loses nothing at a restart; default false: after one, older tokens with uses are refused.
        durable: bool = false,
    }
}

document! {
    /// Time for which keys that were looked up are trusted.
    pub struct DirectoryDocument {
        /// Seconds a key that was found is trusted, 1 to 3,600; default 30.
        fresh_seconds: u64 = 30,
        /// Seconds until a key that was not found is looked up again, 1 to 300; default 5.
        unknown_seconds: u64 = 5,
        /// The most keys of either kind that a worker keeps, 100 to 1,000,000; default 10,000.
        entries: u64 = 10_000,
    }
}

document! {
    /// Freshness of revocations.
    pub struct FeedDocument {
        /// Seconds between two requests for revocations, 1 to 60; default 2.
        refresh_seconds: u64 = 2,
        /// Seconds after which revocations are too old; default 30.
        stale_seconds: u64 = 30,
        /// Treatment of requests while they are too old; default `refuse`.
        when_stale: StaleWord = StaleWord::Refuse,
    }
}

words! {
    /// Treatment of requests while the revocations are too old.
    pub enum StaleWord {
        /// Requests are answered with 503.
        Refuse = "refuse",
        /// The old revocations stay in force.
        Serve = "serve",
    }
}

/// Compiled section `store`.
pub struct StoreRule {
    /// Place of the store.
    pub backend: StoreBackend,
    /// Seals entries in memory that others may share; a secret. Deliberately not in any `Debug`.
    pub key: Vec<u8>,
    /// Size of the gateway's own memory.
    pub size: Size,
    /// Seconds between two requests for the revocations.
    pub refresh: u64,
    /// Seconds after which the revocations are too old.
    pub stale: u64,
    /// True when requests are refused while the revocations are too old.
    pub refuses_when_stale: bool,
    /// Look-up of API keys that are not in the policy.
    pub directory: Option<DirectoryRule>,
    /// Revocations of the policy itself.
    pub revocations: Revocations,
}

/// Use of the store by a policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembers {
    /// True when the gateway's own memory is used.
    pub here: bool,
}

/// Time for which keys that were looked up are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryRule {
    /// Seconds a key that was found is trusted.
    pub fresh: u64,
    /// Seconds until a key that was not found is looked up again.
    pub unknown: u64,
    /// The most keys of either kind that are kept.
    pub entries: usize,
}

/// Place of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreBackend {
    /// The gateway's own memory.
    Memory,
    /// Redis, for all gateways.
    Redis(RedisStore),
}

impl StoreBackend {
    /// Returns the reach of its counts.
    pub fn strength(&self) -> Strength {
        match self {
            Self::Memory => Strength::Node,
            Self::Redis(_) => Strength::Fleet,
        }
    }
}

/// Sections that the store depends on.
pub(super) struct StoreContext<'a> {
    pub(super) profile: &'a Profile,
    pub(super) issuers: &'a [Rc<Issuer>],
    pub(super) loader: &'a SecretLoader<'a>,
    /// True when entries belong to more than one party.
    pub(super) is_shared: bool,
}

impl StoreDocument {
    pub(super) fn compile(&self, context: &StoreContext<'_>, at: &Reader<'_>) -> StoreRule {
        self.check_backend(at);
        let redis = self.redis.as_ref().and_then(|redis| redis.compile(context.issuers, &at.member("redis")));
        // A memory of nginx has its whole size from the beginning.
        let default = if context.profile.memory == SharedMemory::Evicted { 65_536 } else { 262_144 };
        let entries = self.entries.unwrap_or(default);
        at.member("entries").check_range(entries, 65_536..=1_048_576, "");
        let key =
            self.secret.as_ref().and_then(|secret| seal_key(secret, context.loader, &at.member("secret")));
        let default_feed = FeedDocument::default();
        let feed = self.revocations.as_ref().unwrap_or(&default_feed);
        feed.check(&at.member("revocations"));
        StoreRule {
            key: key.unwrap_or_default(),
            size: Size { entries: usize::try_from(entries).unwrap_or(0), is_shared: context.is_shared },
            refresh: feed.refresh_seconds,
            stale: feed.stale_seconds,
            refuses_when_stale: feed.when_stale == StaleWord::Refuse,
            directory: self.directory.as_ref().map(|rule| rule.compile(&at.member("directory"))),
            backend: match redis {
                Some(redis) if self.backend == BackendWord::Redis => StoreBackend::Redis(redis),
                _ => StoreBackend::Memory,
            },
            revocations: Revocations::default(),
        }
    }

    /// Checks that the members of a Redis store are there with it, and only with it.
    fn check_backend(&self, at: &Reader<'_>) {
        if self.backend == BackendWord::Redis || !at.member("backend").was_read() {
            if self.redis.is_none() {
                at.member("redis")
                    .refuse("missing; name Webdis, as in `{\"url\": \"http://127.0.0.1:7379\"}`");
            }
            return;
        }
        let given = [
            ("redis", self.redis.is_some()),
            ("revocations", self.revocations.is_some()),
            ("directory", self.directory.is_some()),
        ];
        if let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            at.member(name).refuse("only with `backend: \"redis\"`");
        }
    }

    /// Returns the intended reach of counts, even if the rest of the section is invalid.
    pub(super) fn strength(&self) -> Strength {
        match (self.backend, &self.redis) {
            (BackendWord::Memory, None) => Strength::Node,
            (BackendWord::Memory, Some(_)) | (BackendWord::Redis, _) => Strength::Fleet,
        }
    }
}

/// Loads the key that seals entries, with the same requirements as a signing secret.
fn seal_key(secret: &SecretDocument, loader: &SecretLoader<'_>, at: &Reader<'_>) -> Option<Vec<u8>> {
    let purpose = Purpose { used_for: "*store", kid: "seal", algorithm: Algorithm::Hs256 };
    let bytes = loader.load(secret, &purpose, at)?;
    let key = Key::from_secret(Algorithm::Hs256, &bytes);
    key.map_err(|error| at.refuse(error.to_string())).ok().map(|_| bytes)
}

impl FeedDocument {
    fn check(&self, at: &Reader<'_>) {
        let (refresh, stale) = (self.refresh_seconds, self.stale_seconds);
        if !(1..=60).contains(&refresh) || stale < refresh.saturating_mul(2) || stale > 86_400 {
            at.refuse(
                "expected 1 <= refresh_seconds <= 60 and 2 * refresh_seconds <= stale_seconds <= 86400",
            );
        }
    }
}

impl DirectoryDocument {
    fn compile(&self, at: &Reader<'_>) -> DirectoryRule {
        at.member("fresh_seconds").check_range(self.fresh_seconds, 1..=3_600, "seconds");
        at.member("unknown_seconds").check_range(self.unknown_seconds, 1..=300, "seconds");
        at.member("entries").check_range(self.entries, 100..=1_000_000, "");
        let entries = usize::try_from(self.entries).unwrap_or(0);
        DirectoryRule { fresh: self.fresh_seconds, unknown: self.unknown_seconds, entries }
    }
}

impl RedisDocument {
    fn compile(&self, issuers: &[Rc<Issuer>], at: &Reader<'_>) -> Option<RedisStore> {
        at.member("timeout_ms").check_range(self.timeout_ms, 10..=5_000, "milliseconds");
        let prefix = self.prefix.clone().unwrap_or_else(|| "callbound:".to_owned());
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(fits) {
            at.member("prefix").refuse("expected 1 to 64 of `A-Z a-z 0-9 - _ . :`");
        }
        let authority = authority(&self.url);
        if authority.is_none() {
            at.member("url").refuse("expected the URL of Webdis, as in `http://127.0.0.1:7379`");
        }
        Some(RedisStore {
            cluster: self.cluster(issuers, &at.member("cluster")),
            authority: authority?.to_owned(),
            timeout: self.timeout_ms,
            prefix,
            is_durable: self.durable,
        })
    }

    fn cluster(&self, issuers: &[Rc<Issuer>], at: &Reader<'_>) -> String {
        let cluster = self.cluster.clone().unwrap_or_else(|| "callbound_store".to_owned());
        check_id(&cluster, at);
        // The operations of the store would be sent to an issuer.
        let serves_keys =
            |issuer: &&Rc<Issuer>| issuer.keys.remote().is_some_and(|remote| remote.cluster == cluster);
        if let Some(issuer) = issuers.iter().find(serves_keys) {
            at.refuse(format!("this cluster serves the keys of issuers.{}", issuer.name));
        }
        cluster
    }
}

/// Host and port of a plain URL without a path.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (is_host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(fits), port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port != 0)
        }
        None => port.is_empty(),
    };
    // A name of the domain name system has at most 253 characters (RFC 1035 section 2.3.4).
    (is_host && is_port && authority.len() <= 260).then_some(authority)
}
