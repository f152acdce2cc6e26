//! State that all requests under one configuration share.

use std::cell::Cell;
use std::rc::Rc;

use crate::decision::{Decision, Denial, Effect, Engine, Outcome, Record};
use crate::policy::{Policy, StoreBackend};
use crate::reason::Reason;
use crate::store::redis::{RedisStore, Reply};
use crate::store::{Change, StoreError};

use super::held::HeldRequests;
use super::host::HostAdapter;
use super::raw::{self, HostResult, Level};
use super::store::Store;
use super::sync::{self, Feed};
use super::telemetry::Telemetry;

/// One loaded configuration. A request keeps the one it began under.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) host: HostAdapter,
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) held: HeldRequests,
    /// This worker has received the body of at least one held request.
    pub(super) can_hold: Cell<bool>,
}

impl Shared {
    pub(super) fn policy(&self) -> &Policy {
        self.engine.policy()
    }

    /// Publishes a decision to metrics, log, access log and usage counts; `now` in Unix seconds.
    pub(super) fn publish(&self, record: &Record, now: u64) {
        self.telemetry.publish(self.policy(), record, now);
        if let (StoreBackend::Redis(redis), Some(key)) = (&self.policy().store.backend, &record.key)
            && record.outcome != Outcome::Deny
        {
            sync::count_use(redis, key, now);
        }
    }

    /// Publishes a decision that is answered here, and sends the reply.
    pub(super) fn reply(&self, decision: &Decision, now: u64) -> HostResult<()> {
        self.publish(&decision.record, now);
        match &decision.effect {
            Effect::Answer(answer) => self.host.reply(answer, &decision.record),
            Effect::Release(_) => Err(raw::UNUSABLE),
        }
    }

    /// Records a failed authentication for the client's address.
    pub(super) fn count_failure(&self, decision: &Decision) {
        let charges = self.engine.failure_charges(decision, &|| self.host.peer());
        if let (false, Ok(nanoseconds)) = (charges.is_empty(), raw::now_nanoseconds()) {
            let Ok(local) = self.store.local() else { return };
            charges.iter().for_each(|charge| local.record_failure(charge, nanoseconds / 1_000));
        }
    }

    /// Gives the engine the revocations made at this gateway. Called before each judgement, so that they apply at once.
    pub(super) fn refresh_revocations(&self) {
        match self.store.new_revocations() {
            Ok(None) => {}
            Ok(Some(revocations)) => self.engine.set_revocations(Rc::new(revocations)),
            Err(_) => self.engine.set_revocations_unreadable(),
        }
    }

    /// Applies changes to this gateway's store, or queues them for Redis; `now` in Unix seconds.
    pub(super) fn change(&self, changes: &[Change], now: u64) {
        match (&self.policy().store.backend, self.store.local()) {
            (StoreBackend::Memory, Ok(local)) => local.change(changes, now),
            (StoreBackend::Memory, Err(_)) => {}
            (StoreBackend::Redis(redis), _) => sync::queue(redis, changes),
        }
    }

    /// Takes over the last feed from the same Redis under an earlier policy.
    pub(super) fn inherit_feed(&self) {
        let StoreBackend::Redis(redis) = &self.policy().store.backend else { return };
        if let Some(feed) = sync::feed(redis) {
            self.apply_feed(&feed);
        }
    }

    fn apply_feed(&self, feed: &Feed) {
        self.engine.set_revocations(Rc::clone(&feed.revocations));
        self.engine.confirm_revocations(feed.confirmed);
        self.store.redis_epoch.set(Some(feed.epoch));
    }

    /// Takes the revocations from an answer of Redis, unless it may evict data; `asked` in Unix seconds.
    pub(super) fn take_feed(&self, redis: &RedisStore, reply: Reply, asked: u64) -> Result<(), StoreError> {
        if reply.may_evict {
            raw::log(Level::Error, "store: Redis may evict data: set `maxmemory-policy noeviction`");
            self.store.redis_epoch.set(None);
            return Err(StoreError::Unavailable);
        }
        let (version, list) = reply.feed.ok_or(StoreError::Unavailable)?;
        let revocations = match (list, sync::feed(redis)) {
            (Some(list), None) => Rc::new(list),
            // A store that lost its data has lost its revocations too, so those of the last feed stay in force.
            (Some(mut list), Some(last)) => {
                list.merge(&last.revocations);
                list.clean(asked);
                Rc::new(list)
            }
            (None, Some(last)) if last.version == version => last.revocations,
            (None, _) => return Err(StoreError::Unavailable),
        };
        let feed = Feed { version, revocations, epoch: reply.epoch, confirmed: asked };
        self.apply_feed(&feed);
        sync::set_feed(redis, feed);
        Ok(())
    }

    /// Answers the requests whose body is overdue; `now` in Unix seconds.
    ///
    /// An Envoy without `allow_on_headers_stop_iteration` never delivers the body of a held request, which would then
    /// hang until the host's own timeout without any explanation.
    pub(super) fn answer_overdue(&self, now: u64) {
        let limit = self.policy().hold_seconds;
        for (context, held) in self.held.take_overdue(now, limit) {
            if raw::set_effective_context(context).is_err() {
                continue;
            }
            let reason = if self.can_hold.get() { Reason::BodyTimeout } else { Reason::HoldUnavailable };
            if reason == Reason::HoldUnavailable {
                let line = format!(
                    "no body arrived within {limit} s of a held request, nor earlier in this worker: \
                     set `allow_on_headers_stop_iteration: true` on this plugin (Envoy 1.35 or later), or look for a \
                     client that never sends its body"
                );
                raw::log(Level::Error, &line);
            }
            let _ = self.reply(&self.engine.refuse(Denial::from(reason), held.record), now);
        }
    }
}
