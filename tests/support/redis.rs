//! A real Redis and its HTTP bridge, started from the deployment in `envoy/redis`, with their faults, and a client to
//! inspect the data.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use callbound::store::redis::{FUNCTION, LIBRARY};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::client;
use super::corpus::Request;
use super::expect::Answer;
use super::fake_bridge::{Behaviour, FakeBridge};
use super::gateway::{Folder, command_that_ends_with_us};
use super::poll;
use super::require::{Piece, Skip, require, root};

const START_LIMIT: Duration = Duration::from_secs(15);

/// Passwords of the deployment, in these tests.
const BRIDGES_PASSWORD: &str = "the bridge's password in the tests";
pub const OPERATORS_PASSWORD: &str = "the operator's password in the tests";

/// Paths of the programs.
#[derive(Clone)]
pub struct RedisPieces {
    redis: PathBuf,
    bridge: PathBuf,
}

impl RedisPieces {
    pub fn find() -> Result<Self, Skip> {
        Ok(Self { redis: require(Piece::Redis)?, bridge: require(Piece::Webdis)? })
    }
}

/// A running Redis with its bridge; both end, by their ids, when this is dropped.
pub struct Redis {
    redis: Option<Child>,
    bridge: Option<Child>,
    pieces: RedisPieces,
    /// Addresses of Redis, of the bridge, and of the bridge behind a fake one.
    redis_address: SocketAddr,
    bridge_address: SocketAddr,
    behind: SocketAddr,
    folder: Folder,
}

impl Redis {
    pub fn start(pieces: &RedisPieces) -> Result<Self, String> {
        let folder = Folder::new("redis")?;
        let [redis_address, bridge_address, behind] = [free_address()?, free_address()?, free_address()?];
        let pieces = pieces.clone();
        let mut redis =
            Self { redis: None, bridge: None, pieces, redis_address, bridge_address, behind, folder };
        redis.write_configuration()?;
        redis.start_redis()?;
        redis.install()?;
        redis.start_bridge()?;
        Ok(redis)
    }

    /// The deployment's files with this run's places, ports and passwords.
    fn write_configuration(&self) -> Result<(), String> {
        let folder = self.folder.path().display().to_string();
        let redis_port = self.redis_address.port().to_string();
        let changes: [(&str, &[(&str, &str)]); 2] = [
            (
                "redis.conf",
                &[
                    ("\nport 6379\n", &format!("\nport {redis_port}\n")),
                    ("/etc/callbound/redis/users.acl", &format!("{folder}/users.acl")),
                    ("/var/lib/callbound-redis", &format!("{folder}/data")),
                ],
            ),
            (
                "users.acl",
                &[
                    ("SHA256_OF_THE_BRIDGES_PASSWORD", &digest(BRIDGES_PASSWORD)),
                    ("SHA256_OF_THE_OPERATORS_PASSWORD", &digest(OPERATORS_PASSWORD)),
                ],
            ),
        ];
        changes.iter().try_for_each(|(name, changes)| self.write_sample(name, name, changes))?;
        for (name, address) in [("webdis.json", self.bridge_address), ("behind.json", self.behind)] {
            let changes: &[(&str, &str)] = &[
                ("\"redis_port\": 6379", &format!("\"redis_port\": {redis_port}")),
                ("\"http_port\": 7379", &format!("\"http_port\": {}", address.port())),
                ("THE_BRIDGES_PASSWORD", BRIDGES_PASSWORD),
            ];
            self.write_sample("webdis.json", name, changes)?;
        }
        Ok(())
    }

    fn write_sample(&self, name: &str, to: &str, changes: &[(&str, &str)]) -> Result<(), String> {
        let path = root().join("envoy/redis").join(name);
        let mut text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for (from, to) in changes {
            if !text.contains(from) {
                return Err(format!("{}: `{from}` is no longer in it", path.display()));
            }
            text = text.replace(from, to);
        }
        fs::write(self.folder.path().join(to), text).map_err(|error| error.to_string())
    }

    /// Returns the address of the bridge for gateways.
    pub fn address(&self) -> SocketAddr {
        self.bridge_address
    }

    /// Returns the address of Redis itself.
    pub fn redis_address(&self) -> SocketAddr {
        self.redis_address
    }

    /// Returns the policy's `store.redis`, with time limits for two busy cores.
    pub fn section(&self) -> Value {
        json!({"url": format!("http://{}", self.bridge_address), "timeout_ms": 5000})
    }

    /// Starts Redis with its existing data.
    pub fn start_redis(&mut self) -> Result<(), String> {
        let folder = self.folder.path().to_owned();
        fs::create_dir_all(folder.join("data")).map_err(|error| error.to_string())?;
        self.redis = Some(spawn(&self.pieces.redis, &folder, "redis.conf", "redis.log")?);
        poll("a Redis that answers", START_LIMIT, || {
            self.client().ok()?.ask(&["PING"]).ok().filter(|answer| *answer == Reply::Text("PONG".to_owned()))
        })
        .map(drop)
        .map_err(|problem| format!("{problem}\n{}", self.log()))
    }

    /// Installs the gateways' function.
    pub fn install(&self) -> Result<(), String> {
        match self.client()?.ask(&["FUNCTION", "LOAD", "REPLACE", LIBRARY])? {
            Reply::Text(_) => Ok(()),
            other => Err(format!("FUNCTION LOAD: {other:?}")),
        }
    }

    /// Removes the gateways' function.
    pub fn uninstall(&self) -> Result<(), String> {
        match self.client()?.ask(&["FUNCTION", "DELETE", FUNCTION])? {
            Reply::Text(_) => Ok(()),
            other => Err(format!("FUNCTION DELETE: {other:?}")),
        }
    }

    /// Sends a command through the bridge.
    pub fn send(&self, command: &str) -> Result<Answer, String> {
        let mut request = Request::new("POST", "/");
        request.body = Some(command.as_bytes().to_vec());
        client::exchange(self.bridge_address, &request)
    }

    /// Starts the bridge where gateways look for it, and waits until the function runs through it.
    pub fn start_bridge(&mut self) -> Result<(), String> {
        self.run_bridge("webdis.json", self.bridge_address)
    }

    fn run_bridge(&mut self, config: &str, address: SocketAddr) -> Result<(), String> {
        self.kill_bridge();
        self.bridge = Some(spawn(&self.pieces.bridge, self.folder.path(), config, "webdis.log")?);
        self.wait_for_function(address).map_err(|problem| format!("{problem}\n{}", self.log()))
    }

    fn wait_for_function(&self, address: SocketAddr) -> Result<(), String> {
        let mut request = Request::new("POST", "/");
        // Malformed, so that it changes nothing.
        request.body = Some(b"FCALL/callbound_1/1/callbound%3A/nonce/1/none".to_vec());
        // One request per connection to Redis: all must be open.
        poll("a bridge that runs the function", START_LIMIT, || {
            let is_good = |_: i32| {
                client::exchange(address, &request)
                    .is_ok_and(|answer| answer.text().contains("malformed operation"))
            };
            (0..16).all(is_good).then_some(())
        })
    }

    /// Waits until the bridge is connected to Redis again.
    pub fn wait_until_back(&self) -> Result<(), String> {
        self.wait_for_function(self.bridge_address)
    }

    /// Ends Redis at once, as a crash does.
    pub fn kill_redis(&mut self) {
        end(&mut self.redis);
    }

    /// Ends the bridge at once.
    pub fn kill_bridge(&mut self) {
        end(&mut self.bridge);
    }

    /// Restarts Redis with everything it knew.
    pub fn restart_keeping_data(&mut self) -> Result<(), String> {
        // Shut down, not killed: it then writes the last second too.
        let _ = self.client()?.ask(&["SHUTDOWN"]);
        if let Some(child) = &mut self.redis {
            let _ = child.wait();
        }
        self.redis = None;
        self.start_redis()?;
        self.wait_until_back()
    }

    /// Restarts Redis with nothing but the function.
    pub fn restart_losing_data(&mut self) -> Result<(), String> {
        self.kill_redis();
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        self.start_redis()?;
        self.install()?;
        self.wait_until_back()
    }

    /// Suspends Redis: its connections stay open without an answer.
    pub fn freeze_redis(&self) -> Result<(), String> {
        signal("STOP", self.redis.as_ref())
    }

    pub fn thaw_redis(&self) -> Result<(), String> {
        signal("CONT", self.redis.as_ref())
    }

    /// Stops the bridge where it is.
    pub fn freeze_bridge(&self) -> Result<(), String> {
        signal("STOP", self.bridge.as_ref())
    }

    pub fn thaw_bridge(&self) -> Result<(), String> {
        signal("CONT", self.bridge.as_ref())
    }

    /// Replaces the bridge by a fake one on its port. The real one keeps running behind it for behaviours that pass
    /// requests on; [`Redis::start_bridge`] restores it once the fake is dropped.
    pub fn fake_bridge(&mut self, behaviour: Behaviour) -> Result<FakeBridge, String> {
        self.run_bridge("behind.json", self.behind)?;
        FakeBridge::start(self.bridge_address, self.behind, behaviour)
    }

    /// The operator's connection to Redis.
    pub fn client(&self) -> Result<RedisClient, String> {
        let mut client = RedisClient::connect(self.redis_address)?;
        match client.ask(&["AUTH", "operator", OPERATORS_PASSWORD])? {
            Reply::Text(answer) if answer == "OK" => Ok(client),
            other => Err(format!("AUTH: {other:?}")),
        }
    }

    /// Returns the logs of both programs.
    pub fn log(&self) -> String {
        ["redis.log", "webdis.log"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Kills a suspended process as well.
        end(&mut self.bridge);
        end(&mut self.redis);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn signal(name: &str, child: Option<&Child>) -> Result<(), String> {
    let child = child.ok_or("it does not run")?;
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("kill -{name}: {other:?}")),
    }
}

fn spawn(program: &Path, folder: &Path, config: &str, log: &str) -> Result<Child, String> {
    let open = || fs::OpenOptions::new().create(true).append(true).open(folder.join(log));
    let (out, err) = (open().map_err(|error| error.to_string())?, open().map_err(|error| error.to_string())?);
    command_that_ends_with_us(program)
        .arg(folder.join(config))
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an unused address below the ports that the kernel gives to outgoing connections, so that it stays free while
/// its program restarts.
fn free_address() -> Result<SocketAddr, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap_or_default();
    for _ in 0..1_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + (first + step) % 12_000));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".to_owned())
}

/// Answer of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    Nothing,
    List(Vec<Self>),
    Refused(String),
}

impl Reply {
    /// The texts of a list.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(list) => list.iter().flat_map(Self::texts).collect(),
            Self::Text(text) => vec![text.clone()],
            Self::Number(number) => vec![number.to_string()],
            Self::Nothing | Self::Refused(_) => Vec::new(),
        }
    }
}

/// A connection that speaks Redis's own protocol (RESP 2).
pub struct RedisClient(BufReader<TcpStream>);

impl RedisClient {
    fn connect(address: SocketAddr) -> Result<Self, String> {
        let limit = Duration::from_secs(5);
        let stream = TcpStream::connect_timeout(&address, limit).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(limit)).map_err(|error| error.to_string())?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a command and reads its answer.
    pub fn ask(&mut self, words: &[&str]) -> Result<Reply, String> {
        let mut command = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.0.get_mut().write_all(command.as_bytes()).map_err(|error| error.to_string())?;
        self.read()
    }

    /// All keys, in order.
    pub fn keys(&mut self) -> Result<Vec<String>, String> {
        let mut keys = self.ask(&["KEYS", "*"])?.texts();
        keys.sort();
        Ok(keys)
    }

    fn read(&mut self) -> Result<Reply, String> {
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(|error| error.to_string())?;
        let line = line.strip_suffix("\r\n").ok_or("Redis closed the connection")?;
        let (kind, rest) = line.split_at_checked(1).ok_or("an empty line")?;
        let number = || rest.parse::<i64>().map_err(|error| error.to_string());
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Refused(rest.to_owned())),
            ":" => number().map(Reply::Number),
            "$" => self.read_text(number()?),
            "*" => (0..number()?.max(0)).map(|_| self.read()).collect::<Result<_, _>>().map(Reply::List),
            other => Err(format!("Redis answered `{other}{rest}`")),
        }
    }

    fn read_text(&mut self, length: i64) -> Result<Reply, String> {
        let Ok(length) = usize::try_from(length) else { return Ok(Reply::Nothing) };
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        bytes.truncate(length);
        Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
