//! Policies: reads, checks, merges and renders them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use callbound::credential::RemoteJwks;
use callbound::policy::{Hold, Policy, Secrets, StoreBackend, compile, guarantees, is_origin};
use callbound::reason::Reason;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::diagnostics::{render, to_json};
use crate::envoy as gateway;
use crate::keys;
use crate::nginx;
use crate::output::{note, print};
use crate::sources::{Sources, read};

/// One policy file, or several merged from left to right.
#[derive(Args)]
pub struct Files {
    /// The policy, `-` for standard input; further files are merged over it (JSON merge patch, RFC 7396)
    #[arg(required = true, value_name = "POLICY")]
    pub policies: Vec<PathBuf>,
}

impl Files {
    /// Reads and merges the files.
    pub fn read(&self) -> Result<Sources, String> {
        Sources::read(&self.policies)
    }

    /// Compiles the policy with this environment's secrets.
    pub fn compile(&self) -> Result<Policy, String> {
        self.read()?.compile(&Secrets::Lookup(&environment))
    }

    /// Compiles the policy without its secrets: it can neither mint nor verify.
    pub fn compile_unchecked(&self) -> Result<Policy, String> {
        self.read()?.compile(&Secrets::Unchecked)
    }
}

/// Returns a variable of the environment.
#[expect(clippy::disallowed_methods, reason = "the tool may look at its environment; the core may not")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Form of what `callbound check` prints.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Each problem with its file, line and column, and the line itself
    Human,
    /// One JSON object with every problem
    Json,
}

/// Arguments of `callbound check`.
#[derive(Args)]
pub struct Check {
    /// Check an Envoy bootstrap, filter file or config dump instead: our filter's place in it, and its settings
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "policies")]
    envoy: Vec<PathBuf>,
    /// Check an nginx.conf, or the output of `nginx -T` (`-` for standard input), instead: each location that proxies;
    /// with the policy also its headers and secrets
    #[arg(long, value_name = "FILE", conflicts_with = "envoy")]
    nginx: Option<PathBuf>,
    /// Load the secrets from this environment as well
    #[arg(long)]
    secrets: bool,
    /// Fail on warnings as well
    #[arg(long)]
    strict: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// The policy, `-` for standard input; further files are merged over it
    #[arg(required_unless_present_any = ["envoy", "nginx"], value_name = "POLICY")]
    policies: Vec<PathBuf>,
}

/// Findings of a check: how many there are, and their text in the chosen form.
struct Findings {
    errors: usize,
    warnings: usize,
    text: String,
}

/// Runs `callbound check`: exit status 0 without problems, 1 with problems, 2 where a file could not be read.
pub fn check(arguments: &Check) -> ExitCode {
    let findings = match (&arguments.nginx, arguments.envoy.as_slice()) {
        (Some(file), _) => check_nginx(file, arguments),
        (None, []) => check_policy(arguments),
        (None, files) => check_envoy(files, arguments.format),
    };
    match findings.and_then(|findings| report(&findings, arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            note(format_args!("callbound: {message}"));
            ExitCode::from(2)
        }
    }
}

/// Prints the findings; returns whether the check passes.
fn report(findings: &Findings, arguments: &Check) -> Result<bool, String> {
    let Findings { errors, warnings, text } = findings;
    let is_good = *errors == 0 && (*warnings == 0 || !arguments.strict);
    if !text.is_empty() {
        let gap = if arguments.format == Format::Human { "\n" } else { "" };
        print(format_args!("{text}{gap}"))?;
    }
    if arguments.format == Format::Human {
        let count =
            |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        match (is_good, *errors) {
            (true, _) => print("ok")?,
            (false, 0) => print(format_args!("{}, refused by --strict", count(*warnings, "warning")))?,
            (false, errors) => print(count(errors, "problem"))?,
        }
    }
    Ok(is_good)
}

fn check_envoy(files: &[PathBuf], format: Format) -> Result<Findings, String> {
    let texts: Vec<String> = files.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let mut problems = Vec::new();
    for (path, found) in files.iter().zip(gateway::check_all(&texts)) {
        problems.extend(found.into_iter().map(|problem| match problem.strip_prefix("warning: ") {
            Some(warning) => ("warning", path.display().to_string(), warning.to_owned()),
            None => ("error", path.display().to_string(), problem),
        }));
    }
    let is_error = |severity: &str| severity == "error";
    let errors = problems.iter().filter(|(severity, ..)| is_error(severity)).count();
    let entry = |(severity, file, message): &(&str, String, String)| json!({"severity": severity, "file": file, "message": message});
    let line = |(severity, file, message): &(&str, String, String)| match is_error(severity) {
        true => format!("{file}: {message}"),
        false => format!("warning: {file}: {message}"),
    };
    let text = match format {
        Format::Human => problems.iter().map(line).collect::<Vec<_>>().join("\n"),
        Format::Json => json!({"problems": problems.iter().map(entry).collect::<Vec<_>>()}).to_string(),
    };
    Ok(Findings { errors, warnings: problems.len() - errors, text })
}

fn check_nginx(file: &Path, arguments: &Check) -> Result<Findings, String> {
    let text = read(file)?;
    let sources = match arguments.policies.as_slice() {
        [] => None,
        files => Some(Sources::read(files)?),
    };
    let compiled = sources.as_ref().map(|sources| sources.compile(&Secrets::Unchecked)).transpose()?;
    let given = sources.as_ref().zip(compiled.as_ref());
    let given = given.map(|(sources, policy)| nginx::Given { policy, text: sources.text() });
    let findings = nginx::check(&file.display().to_string(), &text, given.as_ref());
    let count = |wanted| findings.iter().filter(|finding| finding.severity == wanted).count();
    let (errors, warnings) = (count(nginx::Severity::Error), count(nginx::Severity::Warning));
    let text = match arguments.format {
        Format::Human => findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Format::Json => nginx_json(&findings),
    };
    Ok(Findings { errors, warnings, text })
}

fn nginx_json(findings: &[nginx::Finding]) -> String {
    let entry = |finding: &nginx::Finding| {
        let nginx::Finding { severity, file, line, directive, message } = finding;
        let severity = match severity {
            nginx::Severity::Error => "error",
            nginx::Severity::Warning => "warning",
            nginx::Severity::Note => "note",
        };
        json!({"severity": severity, "file": file, "line": line, "directive": directive, "message": message})
    };
    let is_note = |finding: &&nginx::Finding| finding.severity == nginx::Severity::Note;
    let notes: Vec<_> = findings.iter().filter(is_note).map(entry).collect();
    let problems: Vec<_> = findings.iter().filter(|finding| !is_note(finding)).map(entry).collect();
    json!({"problems": problems, "notes": notes}).to_string()
}

fn check_policy(arguments: &Check) -> Result<Findings, String> {
    let sources = Sources::read(&arguments.policies)?;
    let secrets = if arguments.secrets { Secrets::Lookup(&environment) } else { Secrets::Unchecked };
    let (errors, warnings) = match compile(sources.text().as_bytes(), &secrets) {
        Ok(policy) => (Vec::new(), policy.warnings),
        Err(error) => (error.problems, error.warnings),
    };
    let (errors_found, warnings_found) = (errors.len(), warnings.len());
    let mut problems = [errors, warnings].concat();
    problems.sort_by_key(|problem| sources.order(problem));
    let text = match arguments.format {
        Format::Human => render(&problems, &sources),
        Format::Json => to_json(&problems, &sources).to_string(),
    };
    Ok(Findings { errors: errors_found, warnings: warnings_found, text })
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
    let mut sources = arguments.files.read()?;
    if let Some(host) = &arguments.host {
        sources.set("host", host)?;
    }
    let policy = sources.compile(&Secrets::Unchecked)?;
    guarantees(&policy).iter().try_for_each(print)
}

/// Runs `callbound merge`.
pub fn print_merged(files: &Files) -> Result<(), String> {
    print(files.read()?.text())
}

/// Text after the options of `schema --help`.
pub const SCHEMA_HELP: &str = "\
The schema (draft 2020-12) has every member with its type, allowed words and meaning. An editor uses it to complete
and explain members, and marks misspelt ones. `callbound check` also checks that names are defined and limits are kept.

Name it in the policy as `\"$schema\": \"./policy.schema.json\"`, or map it to your files in the editor's settings.

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
    files.compile_unchecked()?.secret_names.iter().try_for_each(print)
}

/// Runs `callbound nginx-headers`. Other hosts take the headers out by themselves.
pub fn print_nginx_headers(files: &Files) -> Result<(), String> {
    let policy = files.compile_unchecked()?;
    if !["nginx", "kong"].contains(&policy.host.name) {
        return Err(format!(
            "the policy is for `{}`, expected `\"host\": \"nginx\"` or `\"kong\"`",
            policy.host.name
        ));
    }
    print(nginx::CredentialHeaders::of(&policy).render())
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
    if !arguments.admin.ip().is_loopback() {
        return Err(format!(
            "--admin {}: expected a loopback address, as in 127.0.0.1:9901; whoever reaches the admin page can stop Envoy",
            arguments.admin
        ));
    }
    if let Some(value) = arguments.cors.iter().find(|value| !is_origin(value)) {
        return Err(format!(
            "--cors {value}: expected an origin as browsers send it, as in https://app.example.com: no path, no capitals, no default port"
        ));
    }
    let sources = arguments.files.read()?;
    let compiled = sources.compile(&Secrets::Unchecked)?;
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
    let key_sets: Vec<&RemoteJwks> =
        compiled.issuers.iter().filter_map(|issuer| issuer.keys.remote()).collect();
    let files = gateway::Gateway {
        listen: arguments.listen,
        admin: arguments.admin,
        upstream,
        module: &arguments.module,
        filter_file: &seen.join("ecds/filter.yaml"),
        policy: sources.text(),
        env: &compiled.secret_names,
        no_cors_paths: &mint_paths,
        cors_origins: &arguments.cors,
        credential_headers: compiled.read_headers.credentials(),
        key_sets: &key_sets,
        store: match &compiled.store.backend {
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
