//! A real Envoy with the module, rendered by `callbound envoy` as an operator would, on ports of its own choosing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::client;
use super::corpus::Request;
use super::poll;
use super::require::{Piece, Skip, in_path, require};

/// Time limit for Envoy's start; Envoy itself gives up a filter that never loads after 15 s.
const START_LIMIT: Duration = Duration::from_secs(45);

/// Policy, environment and upstream of a gateway.
pub struct Setup<'a> {
    pub policy: &'a str,
    pub env: &'a BTreeMap<String, String>,
    pub upstream: SocketAddr,
    pub cors: &'a [&'a str],
    /// Edit of the rendered filter file.
    pub edit: &'a dyn Fn(String) -> String,
}

/// Programs and files of a gateway.
#[derive(Clone)]
pub struct Pieces {
    envoy: PathBuf,
    module: PathBuf,
}

impl Pieces {
    pub fn find() -> Result<Self, Skip> {
        Ok(Self { envoy: require(Piece::Envoy)?, module: require(Piece::Module)? })
    }
}

/// A running Envoy. It ends, by its id, when this is dropped.
pub struct Gateway {
    child: Child,
    pieces: Pieces,
    folder: Folder,
    upstream: SocketAddr,
    listen: SocketAddr,
    admin: SocketAddr,
}

/// Leaves a filter file as it was rendered.
pub fn unchanged(text: String) -> String {
    text
}

impl Gateway {
    /// With two workers.
    pub fn start(pieces: &Pieces, setup: &Setup<'_>) -> Result<Self, String> {
        Self::start_with_workers(pieces, setup, 2)
    }

    pub fn start_with_workers(pieces: &Pieces, setup: &Setup<'_>, workers: u32) -> Result<Self, String> {
        let folder = Folder::new("gateway")?;
        render(pieces, &folder.0, setup)?;
        let child = spawn(pieces, &folder.0, setup.env, workers)?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let pieces = pieces.clone();
        let mut gateway =
            Self { child, pieces, folder, upstream: setup.upstream, listen: nowhere, admin: nowhere };
        gateway.wait_until_ready().map_err(|problem| format!("{problem}\n{}", gateway.log()))?;
        Ok(gateway)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let file = self.folder.0.join("admin-address");
        self.admin = poll("Envoy's admin address", START_LIMIT, || {
            fs::read_to_string(&file).ok()?.trim().parse().ok()
        })?;
        let admin = self.admin;
        poll("a ready Envoy", START_LIMIT, || (get(admin, "/ready").ok()?.0 == 200).then_some(()))?;
        self.listen = poll("a listener", START_LIMIT, || {
            let listeners: Value =
                serde_json::from_str(&get(admin, "/listeners?format=json").ok()?.1).ok()?;
            let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
            let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })?;
        Ok(())
    }

    /// Kills the process, as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Delivers another policy as an operator would (`callbound envoy … --out` again) and waits until Envoy has taken
    /// it up; an error if Envoy refused it.
    pub fn deliver(&self, setup: &Setup<'_>) -> Result<(), String> {
        let before = self.deliveries();
        render(&self.pieces, &self.folder.0, setup)?;
        poll("the new policy", Duration::from_secs(10), || {
            let now = self.deliveries();
            (now != before).then_some(now)
        })
        .and_then(|now| {
            if now.1 > before.1 { Err("Envoy refused the new policy".to_owned()) } else { Ok(()) }
        })
    }

    /// Returns the numbers of accepted and of rejected policies.
    fn deliveries(&self) -> (u64, u64) {
        (self.stat("http_filter.callbound.config_reload"), self.stat("http_filter.callbound.update_rejected"))
    }

    /// The sum of Envoy's own counters whose names contain this.
    pub fn stat(&self, name: &str) -> u64 {
        let Ok((_, text)) = get(self.admin, &format!("/stats?filter={name}")) else { return 0 };
        text.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum()
    }

    /// Requests Envoy has begun towards the upstream, by its own count.
    pub fn upstream_requests(&self) -> u64 {
        self.stat("cluster.upstream.upstream_rq_total$")
    }

    /// Returns the text of Envoy's log.
    pub fn log(&self) -> String {
        read(&self.folder.0.join("log"))
    }

    /// Lines of the access log.
    pub fn access_log(&self) -> Vec<Value> {
        let text = read(&self.folder.0.join("access"));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The text of the access log.
    pub fn access_text(&self) -> String {
        read(&self.folder.0.join("access"))
    }

    /// Waits for the line of the access log after the first `seen`.
    pub fn next_access(&self, seen: usize) -> Result<Value, String> {
        poll("an access log line", Duration::from_secs(20), || self.access_log().get(seen).cloned())
    }

    /// Waits until the log contains a text.
    pub fn wait_for_log(&self, text: &str) -> Result<(), String> {
        let what = format!("`{text}` in Envoy's log");
        poll(&what, Duration::from_secs(10), || self.log().contains(text).then_some(()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The files of one program; removed with it unless `CALLBOUND_KEEP` is set.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(what: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("CALLBOUND_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn spawn(
    pieces: &Pieces,
    folder: &Path,
    env: &BTreeMap<String, String>,
    workers: u32,
) -> Result<Child, String> {
    let file = |name: &str| File::create(folder.join(name)).map_err(|error| error.to_string());
    command_that_ends_with_us(&pieces.envoy)
        .arg("--config-path")
        .arg(folder.join("bootstrap.yaml"))
        .arg("--admin-address-path")
        .arg(folder.join("admin-address"))
        .args(["--disable-hot-restart", "--concurrency", &workers.to_string()])
        .args(["--file-flush-interval-msec", "20"])
        .args(["--log-level", "warning", "--component-log-level", "wasm:info"])
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(file("access")?)
        .stderr(file("log")?)
        .spawn()
        .map_err(|error| format!("{}: {error}", pieces.envoy.display()))
}

/// Returns a command whose process ends with the test, even if the test is killed and no `Drop` runs.
pub fn command_that_ends_with_us(program: &Path) -> Command {
    match in_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Writes bootstrap and filter; the filter file is changed, if at all, before it is renamed into place.
fn render(pieces: &Pieces, folder: &Path, setup: &Setup<'_>) -> Result<(), String> {
    let (policy, out) = (folder.join("policy.json"), folder.join("rendered"));
    fs::write(&policy, setup.policy).map_err(|error| error.to_string())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbound"));
    command.arg("envoy").arg(&policy).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--upstream", &setup.upstream.to_string()]);
    command.arg("--module").arg(&pieces.module).arg("--out").arg(&out).arg("--seen-as").arg(folder);
    setup.cors.iter().for_each(|origin| _ = command.args(["--cors", origin]));
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("callbound envoy: {}", String::from_utf8_lossy(&output.stderr)));
    }
    place(&out.join("bootstrap.yaml"), &folder.join("bootstrap.yaml"), &unchanged)?;
    place(&out.join("ecds/filter.yaml"), &folder.join("ecds/filter.yaml"), setup.edit)
}

/// Moves a file atomically to the place where Envoy reads it.
fn place(from: &Path, to: &Path, edit: &dyn Fn(String) -> String) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", to.display());
    let text = edit(fs::read_to_string(from).map_err(fail)?);
    fs::write(from, text).map_err(fail)?;
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(fail)?;
    fs::rename(from, to).map_err(fail)
}

fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let answer = client::exchange(address, &Request::new("GET", path))?;
    Ok((answer.status, answer.text()))
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
