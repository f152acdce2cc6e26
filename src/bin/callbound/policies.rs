//! Reading, checking, merging and rendering policies.

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

/// One policy file, or several merged from left to right.
#[derive(Args)]
pub struct Files {
    /// The policy; further files are merged over it (JSON merge patch, RFC 7396)
    #[arg(required = true, value_name = "POLICY")]
    pub policies: Vec<PathBuf>,
}

impl Files {
    /// The text the module would get: a single file byte for byte, several merged.
    pub fn text(&self) -> Result<String, String> {
        if let [only] = self.policies.as_slice() {
            return read(only);
        }
        let mut merged = Value::Null;
        for path in &self.policies {
            let text = read(path)?;
            // Merging would keep the last of two members; the module refuses both.
            callbound::json::Json::parse(text.as_bytes())
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let patch =
                serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            merge(&mut merged, patch);
        }
        serde_json::to_string_pretty(&merged).map_err(|error| error.to_string())
    }

    /// The compiled policy with this environment's secrets.
    pub fn compile(&self) -> Result<Policy, String> {
        let lookup = environment;
        compile(self.text()?.as_bytes(), &Secrets::Lookup(&lookup)).map_err(|error| list(&error))
    }

    /// The compiled policy without its secrets: it neither mints nor verifies.
    pub fn compile_unchecked(&self) -> Result<Policy, String> {
        compile(self.text()?.as_bytes(), &Secrets::Unchecked).map_err(|error| list(&error))
    }
}

fn read(path: &Path) -> Result<String, String> {
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

/// Arguments of `check`.
#[derive(Args)]
pub struct Check {
    /// Check an Envoy bootstrap, filter file or config dump instead: whether our filter stands where it can do its work
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "policies")]
    envoy: Vec<PathBuf>,
    /// Also load the secrets from this environment
    #[arg(long)]
    secrets: bool,
    /// The policy; further files are merged over it
    #[arg(required_unless_present = "envoy", value_name = "POLICY")]
    policies: Vec<PathBuf>,
}

/// `check`.
pub fn check(arguments: &Check) -> ExitCode {
    let problems = match arguments.envoy.as_slice() {
        [] => check_policy(&Files { policies: arguments.policies.clone() }, arguments.secrets),
        files => check_envoy(files),
    };
    match problems {
        Err(message) => {
            eprintln!("callbound: {message}");
            ExitCode::from(2)
        }
        Ok(problems) => {
            problems.iter().for_each(|problem| println!("{problem}"));
            let errors = problems.iter().filter(|problem| !problem.starts_with("warning: ")).count();
            if errors == 0 {
                println!("ok");
                return ExitCode::SUCCESS;
            }
            println!("{errors} {}", if errors == 1 { "problem" } else { "problems" });
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

/// Arguments of `guarantees`.
#[derive(Args)]
pub struct Guarantees {
    #[command(flatten)]
    files: Files,
    /// As if the policy named this host: envoy, kong or apisix
    #[arg(long)]
    host: Option<String>,
}

/// `guarantees`: the sheet, or why the host cannot do what the policy asks for.
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
    guarantees(&policy).iter().for_each(|guarantee| println!("{guarantee}"));
    Ok(())
}

/// `merge`.
pub fn print_merged(files: &Files) -> Result<(), String> {
    println!("{}", files.text()?);
    Ok(())
}

/// What `schema --help` adds.
pub const SCHEMA_HELP: &str = "\
The schema (draft 2020-12) knows every member with its type, words and meaning. An editor that has it completes and
explains them, and marks what is misspelt. Whether names are defined and limits kept is for `callbound check`.

Map it to your files in the editor's settings. A `$schema` member in the policy would be refused: it is no section.

  callbound schema > policy.schema.json

VS Code, .vscode/settings.json:
  {\"json.schemas\": [{\"fileMatch\": [\"policy*.json\"], \"url\": \"./policy.schema.json\"}]}
JetBrains: Settings, Languages & Frameworks, Schemas and DTDs, JSON Schema Mappings: the file, and the pattern
policy*.json.

A file that is only to be merged over another lacks sections of its own, and may hold `null` where it removes a
member; check those merged: `callbound merge A.json B.json`.";

/// `schema`.
pub fn print_schema() -> Result<(), String> {
    let schema = callbound::policy::schema();
    println!("{}", serde_json::to_string_pretty(&schema).map_err(|error| error.to_string())?);
    Ok(())
}

/// `secrets`.
pub fn print_secrets(files: &Files) -> Result<(), String> {
    secret_names(&files.text()?)?.iter().for_each(|name| println!("{name}"));
    Ok(())
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

/// `reasons`.
pub fn print_reasons() {
    for reason in Reason::ALL {
        println!("{:<26} {}  {}", reason.as_str(), reason.status(), reason.message());
    }
}

/// `init`: the policy on standard output, the key that opens it on standard error.
pub fn init() -> Result<(), String> {
    let key = keys::new_key("demo_", 32)?;
    print!("{}", include_str!("init.json").replace("{{SHA256}}", &key.sha256));
    eprintln!("The API key of this policy, shown this once: {}", key.text);
    eprintln!("The secret it signs with: export CALLBOUND_MASTER={}", keys::new_secret()?);
    Ok(())
}

/// Arguments of `envoy`.
#[derive(Args)]
pub struct Envoy {
    #[command(flatten)]
    files: Files,
    /// Where clients connect
    #[arg(long, default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Envoy's admin page: loopback only
    #[arg(long, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Where judged requests go; `https://HOST[:PORT]` is asked over TLS, by its own name
    #[arg(long, value_name = "HOST:PORT")]
    upstream: String,
    /// The compiled module, where Envoy finds it
    #[arg(long, default_value = "dist/callbound.wasm")]
    module: PathBuf,
    /// The folder to write `bootstrap.yaml` and `ecds/filter.yaml` into
    #[arg(long)]
    out: PathBuf,
    /// The same folder as Envoy sees it, when that is another path (in a container)
    #[arg(long)]
    seen_as: Option<PathBuf>,
    /// An origin whose pages may call with a client token; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
}

/// `envoy`: refuses a policy the module would refuse, so that a running gateway is never handed one.
pub fn envoy(arguments: &Envoy) -> Result<(), String> {
    let upstream = gateway::Upstream::parse(&arguments.upstream).ok_or_else(|| {
        format!("--upstream {}: expected HOST:PORT or https://HOST[:PORT]", arguments.upstream)
    })?;
    let policy = arguments.files.text()?;
    let compiled = compile(policy.as_bytes(), &Secrets::Unchecked).map_err(|error| list(&error))?;
    if compiled.host.name != "envoy" {
        return Err(format!("the policy is for `{}`; see gateways/{0}", compiled.host.name));
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

/// Writes beside and renames: Envoy must never read half a policy.
fn replace(path: &Path, text: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(fail)?;
    fs::rename(&new, path).map_err(fail)
}
