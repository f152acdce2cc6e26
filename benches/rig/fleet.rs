//! A Redis and the bridge to it, as the tests start them from `envoy/redis`, and the CPU time both take.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::gateway::cpu_of;
use crate::support::redis::{Redis, RedisPieces};

/// Message for missing lines with `store in redis`.
pub const MISSING: &str = "redis-server or webdis is not installed: scripts/setup.sh --redis";

/// The two programs; they end when this is dropped.
pub struct Fleet {
    programs: Redis,
    redis: u32,
    bridge: u32,
}

/// CPU time spent so far.
#[derive(Clone, Copy)]
pub struct Spent {
    pub redis: Duration,
    pub bridge: Duration,
}

impl Fleet {
    /// Starts both; `None` where one of them is not installed.
    pub fn start() -> Result<Option<Self>, String> {
        let Ok(pieces) = RedisPieces::find() else { return Ok(None) };
        let programs = Redis::start(&pieces)?;
        let info = programs.client()?.ask(&["INFO", "server"])?.texts().concat();
        let id = info.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok());
        let redis = id.ok_or("no process_id in the answer of Redis")?;
        let bridge = our_child("webdis").ok_or("webdis does not run")?;
        Ok(Some(Self { programs, redis, bridge }))
    }

    /// The policy's `store.redis`.
    pub fn section(&self) -> Value {
        self.programs.section()
    }

    pub fn spent(&self) -> Result<Spent, String> {
        Ok(Spent { redis: cpu_of(self.redis)?, bridge: cpu_of(self.bridge)? })
    }
}

/// The process of this name that we started.
fn our_child(name: &str) -> Option<u32> {
    let ours = std::process::id().to_string();
    let is_it = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name: its state, then its parent.
        let parts = stat.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") "));
        parts.is_some_and(|(found, rest)| found == name && rest.split(' ').nth(1) == Some(ours.as_str()))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}
