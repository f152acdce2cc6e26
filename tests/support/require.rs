//! Programs and files that a test needs and this repository does not hold. A missing one is named with its install
//! line, and the tests that need it are counted as skipped; `CALLBOUND_REQUIRE=all` makes a skip a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Completion, Failed};

/// Requirement of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The compiled module, `dist/callbound.wasm`.
    Module,
    /// A real Envoy: `ENVOY_BIN`, or what set-up unpacked.
    Envoy,
    /// A headless browser.
    Chromium,
    /// A Docker engine that answers.
    Docker,
    /// A Redis server.
    Redis,
    /// The bridge that speaks HTTP to Redis.
    Webdis,
    /// The folder with the published clients.
    Clients,
}

/// Missing requirement, with its install line.
#[derive(Clone, Debug)]
pub struct Skip(String);

/// Finds a requirement.
pub fn require(piece: Piece) -> Result<PathBuf, Skip> {
    let (found, missing) = match piece {
        Piece::Module => (
            existing("dist/callbound.wasm".into()),
            "dist/callbound.wasm is not built: make setup && make wasm",
        ),
        Piece::Envoy => (envoy(), "no Envoy: make setup, or set ENVOY_BIN"),
        Piece::Chromium => (
            ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(in_path),
            "no Chromium: scripts/setup.sh --chromium",
        ),
        Piece::Docker => (docker(), "no Docker engine answers: scripts/setup.sh --docker"),
        Piece::Redis => (in_path("redis-server"), "no Redis: scripts/setup.sh --redis"),
        Piece::Webdis => (in_path("webdis"), "no Webdis: scripts/setup.sh --redis"),
        Piece::Clients => (
            existing(".tools/clients/ready".into()).and_then(|ready| Some(ready.parent()?.to_owned())),
            "no published clients: scripts/setup.sh --clients",
        ),
    };
    found.ok_or_else(|| Skip(missing.to_owned()))
}

impl Skip {
    /// Returns the result of a test that cannot run.
    pub fn end(&self) -> Result<Completion, Failed> {
        let must_run = std::env::var("CALLBOUND_REQUIRE").is_ok_and(|value| value == "all");
        if must_run {
            return Err(Failed::from(format!("skipped although CALLBOUND_REQUIRE=all: {}", self.0)));
        }
        Ok(Completion::ignored_with(&self.0))
    }
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn envoy() -> Option<PathBuf> {
    match std::env::var_os("ENVOY_BIN").filter(|path| !path.is_empty()) {
        Some(path) => existing(path.into()),
        None => existing(".tools/envoy".into()),
    }
}

/// Finds the Docker command, if its engine answers.
fn docker() -> Option<PathBuf> {
    let docker = in_path("docker")?;
    let mut info = Command::new(&docker);
    info.arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    info.status().ok()?.success().then_some(docker)
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    let path = root().join(path);
    path.is_file().then_some(path)
}

/// Finds a command as a shell would.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
