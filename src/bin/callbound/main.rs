//! `callbound`: the module's core as a native tool.
//!
//! Writes and checks policies, makes keys and secrets, mints and inspects tokens, renders Envoy's files. It decides
//! with the same code as the module.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod envoy;
mod keys;
mod policies;
mod store;
mod tokens;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Policy at the gateway for voice and realtime APIs.
#[derive(Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  callbound init > policy.json                     a small policy that runs, with a key to try it
  callbound check policy.json                      everything that is wrong with it, at once
  callbound check --secrets policy.json            and whether this environment has its secrets
  callbound check --envoy envoy.yaml               whether an Envoy lets our filter do its work
  callbound guarantees policy.json                 what it enforces on its gateway, and how strongly
  callbound gen-key acme_                          a new API key and what to put into the policy
  callbound mint policy.json --key backend --set 'from_numbers=[\"+15551234567\"]'
  callbound revoke policy.json --token 3f2a...     through the store that gateways share
  callbound inspect rdc_eyJ...                     what a token says (verified with --policy)";

#[derive(Subcommand)]
enum Command {
    /// Print a small policy that runs, and on standard error the key to try it with
    Init,
    /// Check policies, or with --envoy an Envoy configuration; print every problem, exit 1 if there is any
    Check(policies::Check),
    /// Print what a policy enforces on its host, and how strongly; --host says how it would be elsewhere
    Guarantees(policies::Guarantees),
    /// Print policies merged into one: a platform's file, then a deployment's (JSON merge patch, RFC 7396)
    Merge(policies::Files),
    /// Print the JSON Schema of a policy, for editors
    #[command(after_help = policies::SCHEMA_HELP)]
    Schema,
    /// Print the environment variables a policy takes secrets from, one per line
    Secrets(policies::Files),
    /// Print the reasons a request can be refused for, with their statuses
    Reasons,
    /// Print the SHA-256 of an API key read from standard input, as a policy's `sha256`
    HashKey,
    /// Make an API key
    GenKey(keys::GenKey),
    /// Make a secret for a keyring: 32 random bytes in unpadded base64url
    GenSecret,
    /// Mint a client token as the gateway would
    Mint(tokens::Mint),
    /// Show what a token says; with --policy also whether the gateway would believe it
    Inspect(tokens::Inspect),
    /// Print how often each API key was used, from the store that gateways share
    Usage(store::Usage),
    /// Revoke a key or tokens at every gateway, through the store they share
    Revoke(store::Revoke),
    /// API keys that stand in the store that gateways share instead of in the policy
    #[command(subcommand)]
    Directory(store::Directory),
    /// Write Envoy's bootstrap and the filter's ECDS file for a policy
    Envoy(policies::Envoy),
    /// Print the version of this tool and of the policy language; of a module file, too
    Version(version::Version),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init => policies::init(),
        Command::Check(arguments) => return policies::check(&arguments),
        Command::Guarantees(arguments) => policies::print_guarantees(&arguments),
        Command::Merge(files) => policies::print_merged(&files),
        Command::Schema => policies::print_schema(),
        Command::Secrets(files) => policies::print_secrets(&files),
        Command::Reasons => {
            policies::print_reasons();
            Ok(())
        }
        Command::HashKey => keys::hash_key(),
        Command::GenKey(arguments) => keys::gen_key(&arguments),
        Command::GenSecret => keys::gen_secret(),
        Command::Mint(arguments) => tokens::mint(&arguments),
        Command::Inspect(arguments) => tokens::inspect(&arguments),
        Command::Usage(arguments) => store::usage(&arguments),
        Command::Revoke(arguments) => store::revoke(&arguments),
        Command::Directory(command) => store::directory(&command),
        Command::Envoy(arguments) => policies::envoy(&arguments),
        Command::Version(arguments) => version::version(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("callbound: {message}");
            ExitCode::FAILURE
        }
    }
}
