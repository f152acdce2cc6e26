//! Store that gateways share: `usage`, `revoke` and `directory`.
//!
//! Sends the same batches to the same bridge as the module.

use std::time::Duration;

use callbound::hex::hex;
use callbound::policy::{Policy, StoreBackend, read_key};
use callbound::store::redis::{Operation, RedisStore, Reply, answer, request};
use callbound::store::{Revocation, StoreError, Subject};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::keys;
use crate::output::{note, print};
use crate::policies::Files;
use crate::tokens::now;

/// Most bytes of keys in one batch: a bridge limits the size of its requests.
const BATCH_BYTES: usize = 16 << 10;

/// Runs `callbound usage`: prints a line for each key.
pub fn usage(files: &Files) -> Result<(), String> {
    let store = Store::of(files)?;
    let mut usage = store.send(&[Operation::ReadUsage])?.usage;
    usage.sort_by(|one, other| one.key.cmp(&other.key));
    print(format_args!("{:<40} {:>12}  last (Unix seconds)", "key", "uses"))?;
    for key in usage {
        print(format_args!("{:<40} {:>12}  {}", key.key, key.uses, key.last))?;
    }
    Ok(())
}

/// Arguments of `callbound revoke`.
#[derive(Args)]
#[group(id = "subject", required = true, multiple = false, args = ["key", "token", "tokens_of_key", "tokens_of_team"])]
pub struct Revoke {
    #[command(flatten)]
    files: Files,
    /// An API key and all its tokens, by the key's id
    #[arg(long)]
    key: Option<String>,
    /// One token, by its `jti`
    #[arg(long)]
    token: Option<String>,
    /// Every token of a key, issued until now, by the key's id
    #[arg(long)]
    tokens_of_key: Option<String>,
    /// Every token of a team's keys, issued until now
    #[arg(long)]
    tokens_of_team: Option<String>,
}

/// Runs `callbound revoke`.
pub fn revoke(arguments: &Revoke) -> Result<(), String> {
    let store = Store::of(&arguments.files)?;
    let subject = [
        arguments.key.clone().map(Subject::Key),
        arguments.token.clone().map(Subject::Token),
        arguments.tokens_of_key.clone().map(Subject::TokensOfKey),
        arguments.tokens_of_team.clone().map(Subject::TokensOfTeam),
    ];
    let subject = subject.into_iter().flatten().next().ok_or("no key, token or team given")?;
    let (_, id) = subject.parts();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("id `{id}`: expected visible ASCII characters without spaces"));
    }
    let reply = store.send(&[Operation::Revoke(Revocation { subject, by: None, before: now()? })])?;
    if reply.is_full {
        return Err("the store is full of revocations: this one is NOT in force; try again when older ones have expired".into());
    }
    print(format_args!("revoked: at every gateway within {} seconds", store.policy.store.refresh + 1))
}

/// Commands on the API keys in the store.
#[derive(Subcommand)]
pub enum Directory {
    /// Put the `api_keys` of a policy into the store, for gateways with `store.directory`
    Push(Files),
    /// Remove an API key from the store
    Remove(Remove),
}

/// Arguments of `callbound directory remove`.
#[derive(Args)]
pub struct Remove {
    #[command(flatten)]
    files: Files,
    /// Id of the key
    #[arg(long)]
    key: String,
}

/// Runs `callbound directory`.
pub fn directory(command: &Directory) -> Result<(), String> {
    match command {
        Directory::Push(files) => push(files),
        Directory::Remove(arguments) => {
            let store = Store::of(&arguments.files)?;
            store.send(&[Operation::Remove(arguments.key.clone())])?;
            print(format_args!("removed: refused by every gateway within {} seconds", store.fresh()))
        }
    }
}

fn push(files: &Files) -> Result<(), String> {
    let store = Store::of(files)?;
    let document: Value = serde_json::from_str(files.read()?.text()).map_err(|error| error.to_string())?;
    let keys = document.get("api_keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut batch, mut bytes, mut pushed) = (Vec::new(), 0, 0);
    for key in keys.iter().filter(|key| key.get("sha256").is_some()) {
        let text = key.to_string();
        let (key, digest) = read_key(&store.policy, text.as_bytes()).map_err(|error| error.to_string())?;
        bytes += text.len() + 200;
        batch.push(Operation::Put(key.id, digest, text));
        if bytes > BATCH_BYTES {
            pushed += store.put(&mut batch)?;
            bytes = 0;
            note(format_args!("{pushed} of {}", keys.len()));
        }
    }
    pushed += store.put(&mut batch)?;
    let seconds = store.fresh();
    print(format_args!("{pushed} keys are in the store; every gateway uses them within {seconds} seconds"))
}

/// Store of a policy, reached through its bridge.
struct Store {
    policy: Policy,
    remote: RedisStore,
}

impl Store {
    fn of(files: &Files) -> Result<Self, String> {
        let policy = files.compile_unchecked()?;
        match &policy.store.backend {
            StoreBackend::Redis(remote) => Ok(Self { remote: remote.clone(), policy }),
            StoreBackend::Memory => Err("the policy has `store.backend: \"memory\"`, each gateway's own memory, which only the gateway \
                                can read; see its counters at Envoy's /stats and its decisions in the access log"
                .into()),
        }
    }

    /// Returns the seconds after which every gateway reads a key from the store again.
    fn fresh(&self) -> u64 {
        self.policy.store.directory.map_or(0, |rule| rule.fresh)
    }

    /// Sends a batch and returns the number of its keys.
    fn put(&self, batch: &mut Vec<Operation>) -> Result<usize, String> {
        let operations = std::mem::take(batch);
        if !operations.is_empty() {
            self.send(&operations)?;
        }
        Ok(operations.len())
    }

    fn send(&self, operations: &[Operation]) -> Result<Reply, String> {
        let mut nonce = [0; 16];
        keys::fill(&mut nonce)?;
        let nonce = hex(&nonce);
        let url = format!("http://{}/", self.remote.authority);
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let body = request(&self.remote, &nonce, operations);
        let mut response =
            agent.post(&url).send(&body).map_err(|error| format!("{url}: {error}; is Webdis running?"))?;
        let text = response.body_mut().read_to_vec().map_err(|error| format!("{url}: {error}"))?;
        answer(response.status().as_u16(), &text, &nonce, operations).map_err(|error| match error {
            StoreError::Unavailable => {
                format!("{url}: no usable answer (status {}); is Redis running?", response.status())
            }
            error => format!("{url}: {error}"),
        })
    }
}
