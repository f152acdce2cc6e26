//! `callbound`: the module's core as a native tool.
//!
//! Writes and checks policies, makes keys and secrets, mints and inspects tokens, renders Envoy's and nginx's files. Its
//! decisions come from the same code as the module's.

mod diagnostics;
mod envoy;
mod install;
mod keys;
mod nginx;
mod output;
mod policies;
mod redis;
mod sources;
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
  callbound check policy.json                      all problems of a policy; - reads standard input
  callbound check --secrets policy.json            the same, and whether this environment has its secrets
  callbound check --envoy envoy.yaml               problems of an Envoy configuration with our filter
  nginx -T | callbound check --nginx - policy.json problems of an nginx or Kong configuration with our filter
  callbound nginx-headers policy.json              headers with credentials, which nginx and Kong must drop
  callbound guarantees policy.json                 rules that its gateway enforces, and how strongly
  callbound gen-key acme_                          a new API key and its entry for the policy
  callbound mint policy.json --key backend --set 'from_numbers=[\"+15551234567\"]'
  callbound revoke policy.json --token 3f2a...     through the store that gateways share
  callbound store install 127.0.0.1:6379           the function in Redis that gateways call
  callbound inspect rdc_eyJ...                     header and claims of a token (verified with --policy)";

#[derive(Subcommand)]
enum Command {
    /// Print a small policy that runs, and on standard error the key to try it with
    Init,
    /// Check policies, or with --envoy or --nginx a gateway's configuration; print every problem, exit 1 if there is any
    Check(policies::Check),
    /// Print the rules that a policy enforces on its host, and how strongly; --host shows another host's
    Guarantees(policies::Guarantees),
    /// Print policies merged into one: a platform's file, then a deployment's (JSON merge patch, RFC 7396)
    Merge(policies::Files),
    /// Print the JSON Schema of a policy, for editors
    #[command(after_help = policies::SCHEMA_HELP)]
    Schema,
    /// Print the environment variables a policy takes secrets from, one per line
    Secrets(policies::Files),
    /// Print the reasons for refusing a request, with their statuses
    Reasons,
    /// Print the SHA-256 of an API key read from standard input, as a policy's `sha256`
    HashKey,
    /// Make an API key
    GenKey(keys::GenKey),
    /// Make a secret for a keyring: 32 random bytes in unpadded base64url
    GenSecret,
    /// Mint a client token as the gateway would
    Mint(tokens::Mint),
    /// Show the header and claims of a token; with --policy also whether the gateway would accept it
    Inspect(tokens::Inspect),
    /// Print how often each API key was used, from the store that gateways share
    Usage(policies::Files),
    /// Revoke a key or tokens at every gateway, through the store they share
    Revoke(store::Revoke),
    /// Manage API keys in the store that gateways share, instead of in the policy
    #[command(subcommand)]
    Directory(store::Directory),
    /// Install the function that gateways call in Redis, or print it
    #[command(subcommand)]
    Store(install::Store),
    /// Write Envoy's bootstrap and the filter's ECDS file for a policy
    Envoy(policies::Envoy),
    /// Print callbound-headers.conf for a policy: the client's credential headers, which nginx (and Kong) must drop
    NginxHeaders(policies::Files),
    /// Print the versions of this tool and of the policy language, and those of a module file
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
        Command::Reasons => policies::print_reasons(),
        Command::HashKey => keys::hash_key(),
        Command::GenKey(arguments) => keys::gen_key(&arguments),
        Command::GenSecret => keys::gen_secret(),
        Command::Mint(arguments) => tokens::mint(&arguments),
        Command::Inspect(arguments) => tokens::inspect(&arguments),
        Command::Usage(files) => store::usage(&files),
        Command::Revoke(arguments) => store::revoke(&arguments),
        Command::Directory(command) => store::directory(&command),
        Command::Store(command) => install::store(&command),
        Command::Envoy(arguments) => policies::envoy(&arguments),
        Command::NginxHeaders(files) => policies::print_nginx_headers(&files),
        Command::Version(arguments) => version::version(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::note(format_args!("callbound: {message}"));
            ExitCode::FAILURE
        }
    }
}
