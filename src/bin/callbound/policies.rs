//! Policies: reads, checks, merges and renders them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use callbound::credential::RemoteJwks;
use callbound::policy::{ConfigError, Hold, Policy, Secrets, StoreBackend, compile, guarantees, merge};
use callbound::reason::Reason;
use clap::Args;
use serde_json::Value;

use crate::envoy as gateway;
use crate::keys;
use crate::output::{note, print};

/// One policy file, or several merged from left to right.
#[derive(Args)]
pub struct Files {
    /// The policy, `-` for standard input; further files are merged over it (JSON merge patch, RFC 7396)
    #[arg(required = true, value_name = "POLICY")]
    pub policies: Vec<PathBuf>,
}

impl Files {
    /// Returns the text that the module would get: a single file byte for byte, several merged.
    pub fn text(&self) -> Result<String, String> {
        if let [only] = self.policies.as_slice() {
            return read(only);
        }
        let mut merged = Value::Null;
        for path in &self.policies {
            let text = read(path)?;
            // Merging would keep the last of two members with one name; the module refuses both.
            callbound::json::Json::parse(text.as_bytes())
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let patch =
                serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            merge(&mut merged, patch);
        }
        serde_json::to_string_pretty(&merged).map_err(|error| error.to_string())
    }

    /// Compiles the policy with this environment's secrets.
    pub fn compile(&self) -> Result<Policy, String> {
        let lookup = environment;
        compile(self.text()?.as_bytes(), &Secrets::Lookup(&lookup)).map_err(|error| list(&error))
    }

    /// Compiles the policy without its secrets: it can neither mint nor verify.
    pub fn compile_unchecked(&self) -> Result<Policy, String> {
        compile(self.text()?.as_bytes(), &Secrets::Unchecked).map_err(|error| list(&error))
    }
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> Result<String, String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"));
    }
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "the tool may look at its environment; the core may not")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn list(error: &ConfigError) -> String {
    let lines: Vec<String> = error.problems.iter().map(|problem| format!("  {problem}")).collect();
    format!("the policy is refused:\n{}", lines.join("\n"))
}

/// Arguments of `callbound check`.
#[derive(Args)]
pub struct Check {
    /// Check an Envoy bootstrap, filter file or config dump instead: our filter's place in it, and its settings
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "policies")]
    envoy: Vec<PathBuf>,
    /// Load the secrets from this environment as well
    #[arg(long)]
    secrets: bool,
    /// The policy, `-` for standard input; further files are merged over it
    #[arg(required_unless_present = "envoy", value_name = "POLICY")]
    policies: Vec<PathBuf>,
}

/// Runs `callbound check`: exit status 0 without problems, 1 with problems, 2 where a file could not be read.
pub fn check(arguments: &Check) -> ExitCode {
    let problems = match arguments.envoy.as_slice() {
        [] => check_policy(&Files { policies: arguments.policies.clone() }, arguments.secrets),
        files => check_envoy(files),
    };
    match problems {
        Err(message) => {
            note(format_args!("callbound: {message}"));
            ExitCode::from(2)
        }
        Ok(problems) => {
            problems.iter().for_each(|problem| _ = print(problem));
            let errors = problems.iter().filter(|problem| !problem.starts_with("warning: ")).count();
            if errors == 0 {
                _ = print("ok");
                return ExitCode::SUCCESS;
            }
            _ = print(format_args!("{errors} {}", if errors == 1 { "problem" } else { "problems" }));
            ExitCode::FAILURE
        }
    }
}

fn check_envoy(files: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    let texts: Vec<String> = files.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    for (path, found) in files.iter().zip(gateway::check_all(&texts)) {
        problems.extend(found.into_iter().map(|problem| match problem.strip_prefix("warning: ") {
            Some(warning) => format!("warning: {}: {warning}", path.display()),
            None => format!("{}: {problem}", path.display()),
        }));
    }
    Ok(problems)
}

fn check_policy(files: &Files, with_secrets: bool) -> Result<Vec<String>, String> {
    let text = files.text()?;
    let secrets = if with_secrets { Secrets::Lookup(&environment) } else { Secrets::Unchecked };
    Ok(match compile(text.as_bytes(), &secrets) {
        Ok(policy) => policy.warnings.iter().map(|warning| format!("warning: {warning}")).collect(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    })
}

/// Arguments of `callbound guarantees`.
#[derive(Args)]
pub struct Guarantees {
    #[command(flatten)]
    files: Files,
    /// Use this host instead of the policy's: envoy, kong or apisix
    #[arg(long)]
    host: Option<String>,
}

/// Runs `callbound guarantees`: prints the sheet, or the problems of a policy that its host cannot enforce.
pub fn print_guarantees(arguments: &Guarantees) -> Result<(), String> {
    let text = arguments.files.text()?;
    let text = match &arguments.host {
        None => text,
        Some(host) => {
            let mut policy: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            merge(&mut policy, serde_json::json!({ "host": host }));
            policy.to_string()
        }
    };
    let policy = compile(text.as_bytes(), &Secrets::Unchecked).map_err(|error| list(&error))?;
    guarantees(&policy).iter().try_for_each(print)
}

/// Runs `callbound merge`.
pub fn print_merged(files: &Files) -> Result<(), String> {
    print(files.text()?)
}

/// Text after the options of `schema --help`.
pub const SCHEMA_HELP: &str = "\
The schema (draft 2020-12) has every member with its type, allowed words and meaning. An editor uses it to complete
and explain members, and marks misspelt ones. `callbound check` also checks that names are defined and limits are kept.

Map it to your files in the editor's settings. The policy itself may not have a `$schema` member.

  callbound schema > policy.schema.json

VS Code, .vscode/settings.json:
  {\"json.schemas\": [{\"fileMatch\": [\"policy*.json\"], \"url\": \"./policy.schema.json\"}]}
JetBrains: Settings, Languages & Frameworks, Schemas and DTDs, JSON Schema Mappings: the file, and the pattern
policy*.json.

A file that is merged over another may lack sections, and has `null` where it removes a member; check the result of
`callbound merge A.json B.json` instead.";

/// Runs `callbound schema`.
pub fn print_schema() -> Result<(), String> {
    let schema = callbound::policy::schema();
    print(serde_json::to_string_pretty(&schema).map_err(|error| error.to_string())?)
}

/// Runs `callbound secrets`.
pub fn print_secrets(files: &Files) -> Result<(), String> {
    secret_names(&files.text()?)?.iter().try_for_each(print)
}

fn secret_names(text: &str) -> Result<Vec<String>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let keys = ["keyring", "upstream_keys"].into_iter().filter_map(|section| json.get(section)?.as_array());
    let secrets = keys.flatten().filter_map(|key| key.get("secret"));
    let others = [json.pointer("/store/secret"), json.get("entropy")];
    let names = secrets.chain(others.into_iter().flatten()).filter_map(|secret| {
        let from = secret.get("derive").unwrap_or(secret);
        from.get("env")?.as_str().map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Runs `callbound reasons`.
pub fn print_reasons() -> Result<(), String> {
    let line = |reason: &Reason| format!("{:<26} {}  {}", reason.as_str(), reason.status(), reason.message());
    Reason::ALL.iter().map(line).try_for_each(print)
}

/// Runs `callbound init`: the policy on standard output, its key and secret on standard error.
pub fn init() -> Result<(), String> {
    let key = keys::new_key("demo_", 32)?;
    print(include_str!("init.json").trim_end().replace("{{SHA256}}", &key.sha256))?;
    note(format_args!("The API key of this policy, shown only once: {}", key.text));
    note(format_args!("The secret it signs with: export CALLBOUND_MASTER={}", keys::new_secret()?));
    Ok(())
}

/// Arguments of `callbound envoy`.
#[derive(Args)]
pub struct Envoy {
    #[command(flatten)]
    files: Files,
    /// Address that clients connect to
    #[arg(long, default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Address of Envoy's admin page: loopback only
    #[arg(long, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Server that allowed requests are sent to; https://HOST[:PORT] uses TLS and the server's own name
    #[arg(long, value_name = "HOST:PORT")]
    upstream: String,
    /// Path of the compiled module as Envoy sees it
    #[arg(long, default_value = "dist/callbound.wasm")]
    module: PathBuf,
    /// Folder that `bootstrap.yaml` and `ecds/filter.yaml` are written to
    #[arg(long)]
    out: PathBuf,
    /// Path of that folder as Envoy sees it, where it differs (in a container)
    #[arg(long)]
    seen_as: Option<PathBuf>,
    /// Origin whose pages may call with a client token; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
}

/// Runs `callbound envoy`. Refuses a policy that the module would refuse, so that a running gateway never gets one.
pub fn envoy(arguments: &Envoy) -> Result<(), String> {
    let upstream = gateway::Upstream::parse(&arguments.upstream).ok_or_else(|| {
        format!("--upstream {}: expected HOST:PORT or https://HOST[:PORT]", arguments.upstream)
    })?;
    let policy = arguments.files.text()?;
    let compiled = compile(policy.as_bytes(), &Secrets::Unchecked).map_err(|error| list(&error))?;
    if compiled.host.name != "envoy" {
        return Err(format!(
            "the policy is for `{}`, expected `\"host\": \"envoy\"`; see gateways/{0}",
            compiled.host.name
        ));
    }
    let mint_paths: Vec<String> = compiled.routes.mint_templates().map(str::to_owned).collect();
    let folder = arguments.out.join("ecds");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let seen = arguments.seen_as.as_ref().unwrap_or(&arguments.out);
    let env = secret_names(&policy)?;
    let key_sets: Vec<&RemoteJwks> =
        compiled.issuers.iter().filter_map(|issuer| issuer.keys.remote()).collect();
    let files = gateway::Gateway {
        listen: arguments.listen,
        admin: arguments.admin,
        upstream,
        module: &arguments.module,
        filter_file: &seen.join("ecds/filter.yaml"),
        policy: &policy,
        env: &env,
        no_cors_paths: &mint_paths,
        cors_origins: &arguments.cors,
        key_sets: &key_sets,
        store: match &compiled.store.home {
            StoreBackend::Redis(remote) => Some(remote),
            StoreBackend::Memory => None,
        },
        is_buffered: compiled.hold == Hold::FilterBehind,
    };
    replace(&arguments.out.join("bootstrap.yaml"), &gateway::bootstrap(&files))?;
    replace(&folder.join("filter.yaml"), &gateway::filter(&files))
}

/// Replaces a file by renaming a new one, so that Envoy never reads half a policy.
fn replace(path: &Path, text: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(fail)?;
    fs::rename(&new, path).map_err(fail)
}
