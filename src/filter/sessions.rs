//! Open sessions of this VM, whose leases are renewed until they end. They outlive the policy they began under.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::decision::OpenSession;
use crate::store::{Change, RENEW_SECONDS};

use super::shared::Shared;

struct Session {
    shared: Rc<Shared>,
    open: OpenSession,
    /// Unix seconds of the begin.
    since: u64,
    /// Unix seconds of the last renewal.
    renewed: u64,
}

thread_local! {
    /// Sessions by context id.
    static SESSIONS: RefCell<BTreeMap<u32, Session>> = const { RefCell::new(BTreeMap::new()) };
}

/// Records a session that begins; `now` in Unix seconds.
pub(super) fn begin(context: u32, shared: &Rc<Shared>, open: OpenSession, now: u64) {
    let session = Session { shared: Rc::clone(shared), open, since: now, renewed: now };
    SESSIONS.with_borrow_mut(|sessions| sessions.insert(context, session));
}

/// Ends a session and gives back its slots and unused seconds. A begun second counts as used, or short sessions would
/// be free. Without a clock (`now` in Unix seconds) all seconds count as used.
pub(super) fn end(context: u32, now: Option<u64>) {
    let Some(session) = SESSIONS.with_borrow_mut(|sessions| sessions.remove(&context)) else { return };
    let mut changes: Vec<Change> = session.open.leases.iter().map(|lease| Change::End(*lease)).collect();
    let lasted = now.and_then(|now| now.checked_sub(session.since));
    if let (Some((key, seconds)), Some(lasted)) = (session.open.seconds, lasted) {
        changes.push(Change::GiveBack(key, seconds.saturating_sub(lasted.saturating_add(1))));
    }
    session.shared.change(&changes, now.unwrap_or(session.renewed));
}

/// Renews the leases that are due, all of one policy together; `now` in Unix seconds.
pub(super) fn renew_all(now: u64) {
    let mut due: Vec<(Rc<Shared>, Vec<Change>)> = Vec::new();
    SESSIONS.with_borrow_mut(|sessions| {
        for session in sessions.values_mut() {
            // A clock that was set back makes a renewal due, not late.
            if now.checked_sub(session.renewed).is_some_and(|elapsed| elapsed < RENEW_SECONDS)
                || session.open.leases.is_empty()
            {
                continue;
            }
            session.renewed = now;
            let changes = session.open.leases.iter().map(|lease| Change::Renew(*lease));
            match due.iter_mut().find(|(shared, _)| Rc::ptr_eq(shared, &session.shared)) {
                Some((_, list)) => list.extend(changes),
                None => due.push((Rc::clone(&session.shared), changes.collect())),
            }
        }
    });
    due.iter().for_each(|(shared, changes)| shared.change(changes, now));
}
