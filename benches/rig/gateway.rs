//! One real Envoy with one worker and a listener per variant.
//!
//! Every listener is the one that `callbound envoy` renders, without its access log and its CORS filter, so that they
//! differ only in the filters that are compared. Its route answers directly: no upstream adds its noise. So that a body
//! is received all the same, Envoy's buffer filter precedes every router.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::at;

const START_LIMIT: Duration = Duration::from_secs(60);
const WORKER: &str = "wrk:worker_0";

/// A listener: its name and the filters before the router.
pub struct Listener {
    pub name: String,
    pub filters: Vec<Value>,
}

/// A running Envoy. It ends, by its id, when this is dropped.
pub struct Gateway {
    child: Child,
    /// Address of each listener.
    pub addresses: BTreeMap<String, SocketAddr>,
    admin: Option<SocketAddr>,
    log: PathBuf,
}

/// Output of `callbound envoy` for one module.
pub struct Rendered {
    bootstrap: Value,
    /// callbound's filter, as the connection manager names it.
    pub filter: Value,
}

impl Rendered {
    /// Renders into a folder of its own, with a virtual machine of its own: policies share no state.
    pub fn new(folder: &Path, policy: &Path, module: &Path) -> Result<Self, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_callbound"))
            .arg("envoy")
            .arg(policy)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", "127.0.0.1:9"])
            .arg("--module")
            .arg(module)
            .arg("--out")
            .arg(folder)
            .stdin(Stdio::null())
            .output()
            .map_err(at("callbound envoy"))?;
        if !output.status.success() {
            return Err(format!("callbound envoy: {}", String::from_utf8_lossy(&output.stderr)));
        }
        own_memory(folder)?;
        let text = fs::read_to_string(folder.join("bootstrap.yaml")).map_err(at("bootstrap.yaml"))?;
        let bootstrap: Value = serde_yaml_ng::from_str(&text).map_err(at("bootstrap.yaml"))?;
        let filters = &manager(&bootstrap["static_resources"]["listeners"][0])["http_filters"];
        let ours =
            filters.as_array().and_then(|list| list.iter().find(|filter| filter["name"] == "callbound"));
        let filter = ours.ok_or("bootstrap.yaml has no filter named `callbound`")?.clone();
        Ok(Self { bootstrap, filter })
    }

    /// The bootstrap with these listeners instead of its own.
    fn with(&self, listeners: &[Listener]) -> Value {
        let mut bootstrap = self.bootstrap.clone();
        let list = &mut bootstrap["static_resources"]["listeners"];
        let shipped = list[0].take();
        *list = listeners.iter().map(|listener| with_filters(shipped.clone(), listener)).collect();
        bootstrap
    }
}

/// Names the virtual machine after its folder: memory is shared by those of one name.
fn own_memory(folder: &Path) -> Result<(), String> {
    let path = folder.join("ecds/filter.yaml");
    let text = fs::read_to_string(&path).map_err(at(path.display()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let named = text.replacen("vm_id: callbound\n", &format!("vm_id: {name}\n"), 1);
    if named == text {
        return Err(format!("{}: there is no `vm_id: callbound` in it", path.display()));
    }
    fs::write(&path, named).map_err(at(path.display()))
}

fn manager(listener: &Value) -> &Value {
    &listener["filter_chains"][0]["filters"][0]["typed_config"]
}

fn with_filters(mut shipped: Value, listener: &Listener) -> Value {
    shipped["name"] = json!(listener.name);
    let manager = &mut shipped["filter_chains"][0]["filters"][0]["typed_config"];
    manager["stat_prefix"] = json!(listener.name);
    let router = manager["http_filters"].as_array_mut().and_then(Vec::pop).unwrap_or_default();
    let buffer = json!({"name": "envoy.filters.http.buffer", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": 65_536,
    }});
    manager["http_filters"] = listener.filters.iter().cloned().chain([buffer, router]).collect();
    let answer = json!({"status": 200, "body": {"inline_string": "{\"data\":{\"ok\":true}}"}});
    manager["route_config"]["virtual_hosts"][0]["routes"] =
        json!([{"match": {"prefix": "/"}, "direct_response": answer}]);
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("access_log");
    }
    shipped
}

/// Returns the filter without an effect, from `empty-filter.wat`.
pub fn empty_filter(folder: &Path) -> Result<Value, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/empty-filter.wat");
    let module = folder.join("empty.wasm");
    fs::write(&module, wat::parse_file(source).map_err(at(source))?).map_err(at(module.display()))?;
    let config = json!({
        "name": "empty",
        "root_id": "empty",
        "vm_config": {
            "vm_id": "empty",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": module}},
        },
    });
    let kind = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    Ok(json!({"name": "empty", "typed_config": {"@type": kind, "config": config}}))
}

impl Gateway {
    pub fn start(
        envoy: &Path,
        folder: &Path,
        rendered: &Rendered,
        listeners: &[Listener],
        secret: (&str, &str),
    ) -> Result<Self, String> {
        let (bootstrap, admin, log) =
            (folder.join("bench.json"), folder.join("admin-address"), folder.join("log"));
        fs::write(&bootstrap, rendered.with(listeners).to_string()).map_err(at(bootstrap.display()))?;
        let child = ending_with_us(envoy)
            .arg("--config-path")
            .arg(&bootstrap)
            .arg("--admin-address-path")
            .arg(&admin)
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "warning", "--component-log-level", "wasm:info"])
            .env_clear()
            .env(secret.0, secret.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(at(log.display()))?)
            .spawn()
            .map_err(at(envoy.display()))?;
        let mut gateway = Self { child, addresses: BTreeMap::new(), admin: None, log };
        gateway.wait(&admin, listeners.len()).map_err(|problem| format!("{problem}\n{}", gateway.log()))?;
        Ok(gateway)
    }

    fn wait(&mut self, admin: &Path, count: usize) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("Envoy ended: {status}"));
            }
            let address = fs::read_to_string(admin).ok().and_then(|text| text.trim().parse().ok());
            if let Some(addresses) = address.and_then(ready).filter(|found| found.len() == count) {
                (self.addresses, self.admin) = (addresses, address);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("Envoy was not ready within {START_LIMIT:?}"))
    }

    /// The end of Envoy's log.
    pub fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4_000)..]).into_owned()
    }

    /// CPU time of the worker, the thread that carries every request.
    pub fn cpu(&self) -> Result<Duration, String> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        for task in fs::read_dir(&tasks).map_err(at(tasks.display()))?.flatten() {
            let task = task.path();
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == WORKER) {
                return on_cpu(&task).ok_or_else(|| format!("{}: cannot be read", task.display()));
            }
        }
        Err(format!("Envoy has no thread {WORKER}"))
    }

    /// Returns Envoy's count of requests to clusters. Listeners answer directly, so all are the module's.
    pub fn callouts(&self) -> Result<u64, String> {
        let answer = self.ask("/stats?filter=upstream_rq_total$")?;
        Ok(answer.lines().filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok()).sum())
    }

    /// Returns Envoy's count of bytes on its heap. It excludes the modules' own memory and includes shared data.
    pub fn heap(&self) -> Result<u64, String> {
        let answer = self.ask("/memory")?;
        let body: Value = serde_json::from_str(&answer).map_err(at("/memory"))?;
        let bytes = body["allocated"].as_str().and_then(|text| text.parse().ok());
        bytes.ok_or_else(|| format!("/memory: {answer}"))
    }

    fn ask(&self, path: &str) -> Result<String, String> {
        let answer = self.admin.and_then(|admin| get(admin, path));
        let body = answer.as_deref().and_then(|answer| Some(answer.split_once("\r\n\r\n")?.1.to_owned()));
        body.ok_or_else(|| format!("Envoy's admin page does not answer {path}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process ends should the bench be killed, where there is `setpriv`: no `Drop` runs then.
fn ending_with_us(program: &Path) -> Command {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let setpriv = std::env::split_paths(&folders).map(|folder| folder.join("setpriv"));
    match setpriv.into_iter().find(|path| path.is_file()) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// CPU time of all threads of a process.
pub fn cpu_of(process: u32) -> Result<Duration, String> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let tasks = fs::read_dir(&tasks).map_err(at(tasks.display()))?;
    Ok(tasks.flatten().filter_map(|task| on_cpu(&task.path())).sum())
}

/// In nanoseconds where the kernel keeps them (`schedstat`), else in ticks of 10 ms (`stat`: utime + stime).
fn on_cpu(task: &Path) -> Option<Duration> {
    let exact = fs::read_to_string(task.join("schedstat")).ok();
    let exact = exact.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(nanoseconds) = exact.filter(|nanoseconds| *nanoseconds > 0) {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis(10 * ticks.sum::<Option<u64>>()?))
}

/// The listeners by name, once Envoy serves.
fn ready(admin: SocketAddr) -> Option<BTreeMap<String, SocketAddr>> {
    if !get(admin, "/ready")?.starts_with("HTTP/1.1 200") {
        return None;
    }
    let answer = get(admin, "/listeners?format=json")?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    let statuses = body["listener_statuses"].as_array()?;
    let address = |status: &Value| {
        let port = status["local_address"]["socket_address"]["port_value"].as_u64()?;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?));
        Some((status["name"].as_str()?.to_owned(), address))
    };
    statuses.iter().map(address).collect()
}

fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    // Chunks of an admin answer are whole lines of size, text and nothing; sizes are no JSON.
    if answer.contains("transfer-encoding: chunked") {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let text: String = body.split("\r\n").skip(1).step_by(2).collect();
        return Some(format!("{head}\r\n\r\n{text}"));
    }
    Some(answer)
}
