//! The store that gateways share, from outside a gateway: who used what, what is revoked, and the keys that stand there.
//!
//! Speaks to the same bridge with the same batches as the module.

use std::time::Duration;

use callbound::hex::hex;
use callbound::policy::{Policy, StoreBackend, read_key};
use callbound::store::redis::{Operation, RedisStore, Reply, answer, request};
use callbound::store::{Revocation, Subject};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::keys;
use crate::policies::Files;
use crate::tokens::now;

/// Bytes of keys in one batch: a bridge takes no more than its configuration says.
const BATCH_BYTES: usize = 16 << 10;

/// Arguments of `usage`.
#[derive(Args)]
pub struct Usage {
    #[command(flatten)]
    files: Files,
}

/// `usage`: a line for each key.
pub fn usage(arguments: &Usage) -> Result<(), String> {
    let store = Store::of(&arguments.files)?;
    let mut usage = store.send(&[Operation::ReadUsage])?.usage;
    usage.sort_by(|one, other| one.key.cmp(&other.key));
    println!("{:<40} {:>12}  last (Unix seconds)", "key", "uses");
    for key in usage {
        println!("{:<40} {:>12}  {}", key.key, key.uses, key.last);
    }
    Ok(())
}

/// Arguments of `revoke`.
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
    /// Every token of a key that was issued until now, by the key's id
    #[arg(long)]
    tokens_of_key: Option<String>,
    /// Every token of a team's keys that was issued until now
    #[arg(long)]
    tokens_of_team: Option<String>,
}

/// `revoke`.
pub fn revoke(arguments: &Revoke) -> Result<(), String> {
    let store = Store::of(&arguments.files)?;
    let subject = [
        arguments.key.clone().map(Subject::Key),
        arguments.token.clone().map(Subject::Token),
        arguments.tokens_of_key.clone().map(Subject::TokensOfKey),
        arguments.tokens_of_team.clone().map(Subject::TokensOfTeam),
    ];
    let subject = subject.into_iter().flatten().next().ok_or("name what is to be revoked")?;
    let (_, id) = subject.parts();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an id is visible characters without blanks".into());
    }
    let reply = store.send(&[Operation::Revoke(Revocation { subject, by: None, before: now()? })])?;
    if reply.is_full {
        return Err("the store holds as many revocations as it may; this one is NOT in force".into());
    }
    println!("revoked: at every gateway within {} seconds", store.policy.store.refresh + 1);
    Ok(())
}

/// What is done with the keys in the store.
#[derive(Subcommand)]
pub enum Directory {
    /// Put the `api_keys` of a policy into the store, where gateways with `store.directory` find them
    Push(Push),
    /// Take an API key out of the store
    Remove(Remove),
}

/// Arguments of `directory push`.
#[derive(Args)]
pub struct Push {
    #[command(flatten)]
    files: Files,
}

/// Arguments of `directory remove`.
#[derive(Args)]
pub struct Remove {
    #[command(flatten)]
    files: Files,
    /// The key's id
    #[arg(long)]
    key: String,
}

/// `directory`.
pub fn directory(command: &Directory) -> Result<(), String> {
    match command {
        Directory::Push(arguments) => push(&arguments.files),
        Directory::Remove(arguments) => {
            let store = Store::of(&arguments.files)?;
            store.send(&[Operation::Remove(arguments.key.clone())])?;
            println!("removed: refused by every gateway within {} seconds", store.fresh());
            Ok(())
        }
    }
}

fn push(files: &Files) -> Result<(), String> {
    let store = Store::of(files)?;
    let document: Value = serde_json::from_str(&files.text()?).map_err(|error| error.to_string())?;
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
            eprintln!("{pushed} of {}", keys.len());
        }
    }
    pushed += store.put(&mut batch)?;
    println!(
        "{pushed} keys are in the store; what changed counts at every gateway within {} seconds",
        store.fresh()
    );
    Ok(())
}

/// The store of a policy.
struct Store {
    policy: Policy,
    remote: RedisStore,
}

impl Store {
    fn of(files: &Files) -> Result<Self, String> {
        let policy = files.compile_unchecked()?;
        match &policy.store.home {
            StoreBackend::Redis(remote) => Ok(Self { remote: remote.clone(), policy }),
            StoreBackend::Memory => Err("this policy's store is each gateway's own memory (`store.home: local`), which only the \
                                gateway can read: its counters are at Envoy's /stats, its decisions in the access log"
                .into()),
        }
    }

    fn fresh(&self) -> u64 {
        self.policy.store.directory.map_or(0, |rule| rule.fresh)
    }

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
            agent.post(&url).send(&body).map_err(|error| format!("{url}: {error}; is Webdis up?"))?;
        let text = response.body_mut().read_to_vec().map_err(|error| format!("{url}: {error}"))?;
        answer(response.status().as_u16(), &text, &nonce, operations).map_err(|_| {
            format!(
                "{url}: no usable answer (status {}); is Redis up, and may Webdis run EVAL?",
                response.status()
            )
        })
    }
}
