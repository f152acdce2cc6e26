//! Function that gateways call in Redis: `store install` and `store function`.

use std::io::Read as _;

use callbound::store::redis::{FUNCTION, LIBRARY};
use clap::{Args, Subcommand};
use redis_protocol::resp2::types::OwnedFrame;

use crate::output::{note, print};
use crate::policies::environment;
use crate::redis::{Redis, text};

/// Environment variable with the operator's password for Redis.
const PASSWORD: &str = "CALLBOUND_REDIS_PASSWORD";

/// First major version of Redis that has functions.
const MINIMUM_VERSION: u32 = 7;

/// Commands on the store that gateways share.
#[derive(Subcommand)]
pub enum Store {
    /// Install the function that gateways call into Redis, or replace another version of it
    #[command(after_help = INSTALL_HELP)]
    Install(Install),
    /// Print that function, for `redis-cli -x FUNCTION LOAD REPLACE`
    Function,
}

const INSTALL_HELP: &str = "\
Connects to Redis itself, not to the bridge of the gateways: on this machine or through a tunnel, because the
connection is not encrypted. The password is read from CALLBOUND_REDIS_PASSWORD, or with --password-stdin from standard
input; never from an argument, which process lists show. Safe while gateways run, and when repeated.
Run it before gateways of this version start, and again if Redis lost its data.";

/// Arguments of `callbound store install`.
#[derive(Args)]
pub struct Install {
    /// Address of Redis, HOST:PORT
    #[arg(default_value = "127.0.0.1:6379")]
    address: String,
    /// User of Redis that may call FUNCTION and INFO
    #[arg(long, default_value = "operator")]
    user: String,
    /// Read the user's password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Runs `callbound store`.
pub fn store(command: &Store) -> Result<(), String> {
    match command {
        Store::Install(arguments) => install(arguments),
        Store::Function => print(LIBRARY.trim_end()),
    }
}

fn install(arguments: &Install) -> Result<(), String> {
    let password = arguments.password()?;
    let mut redis = Redis::connect(&arguments.address)?;
    if let Some(password) = &password {
        redis.call(&["AUTH", &arguments.user, password])?;
    }
    let version = version(&mut redis).map_err(|error| arguments.with_hint(error, password.is_some()))?;
    let is_ours = |code: &str| code.trim_end() == LIBRARY.trim_end();
    let change = match installed(&mut redis)? {
        Some(code) if is_ours(&code) => "it was there already",
        Some(_) => {
            redis.call(&["FUNCTION", "LOAD", "REPLACE", LIBRARY])?;
            "it replaced another version"
        }
        None => {
            redis.call(&["FUNCTION", "LOAD", LIBRARY])?;
            "it is new"
        }
    };
    if !installed(&mut redis)?.is_some_and(|code| is_ours(&code)) {
        return Err(format!(
            "Redis does not have the library that was sent: is another tool changing `{FUNCTION}`?"
        ));
    }
    print(format_args!(
        "`{FUNCTION}` is in Redis {version} at {}, read back and compared: {change}",
        arguments.address
    ))?;
    note_next_steps(&libraries(&mut redis)?);
    Ok(())
}

fn note_next_steps(libraries: &[String]) {
    note(format_args!(
        "gateways use it from their next call; Webdis needs `+fcall|{FUNCTION}` in users.acl and FCALL in webdis.json"
    ));
    for other in libraries.iter().filter(|name| *name != FUNCTION) {
        note(format_args!(
            "`{other}` is installed too, for gateways of another version; without them: redis-cli FUNCTION DELETE {other}"
        ));
    }
}

impl Install {
    /// Reads the password; `None` when none is given, for a Redis without passwords.
    fn password(&self) -> Result<Option<String>, String> {
        if !self.password_stdin {
            return Ok(environment(PASSWORD));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err("expected the password on standard input".into());
        }
        Ok(Some(password.to_owned()))
    }

    fn with_hint(&self, error: String, has_password: bool) -> String {
        match error.contains("NOAUTH") && !has_password {
            true => format!(
                "{}: Redis requires a password: give that of user `{}` in {PASSWORD}, or with --password-stdin",
                self.address, self.user
            ),
            false => error,
        }
    }
}

/// Returns the version of Redis, which must have functions.
fn version(redis: &mut Redis) -> Result<String, String> {
    let info = text(&redis.call(&["INFO", "server"])?).unwrap_or_default();
    let version =
        info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < MINIMUM_VERSION) {
        return Err(format!(
            "Redis has version `{version}`; functions need version {MINIMUM_VERSION} or later"
        ));
    }
    Ok(version.to_owned())
}

/// Returns the code of the library that Redis has under our name.
fn installed(redis: &mut Redis) -> Result<Option<String>, String> {
    let list = redis.call(&["FUNCTION", "LIST", "LIBRARYNAME", FUNCTION, "WITHCODE"])?;
    let OwnedFrame::Array(list) = list else {
        return Err("Redis lists its functions in another form".into());
    };
    Ok(list.iter().find_map(|library| member(library, "library_code")))
}

/// Returns the names of all our libraries, of every layout.
fn libraries(redis: &mut Redis) -> Result<Vec<String>, String> {
    let list = redis.call(&["FUNCTION", "LIST", "LIBRARYNAME", "callbound_*"])?;
    let OwnedFrame::Array(list) = list else { return Ok(Vec::new()) };
    Ok(list.iter().filter_map(|library| member(library, "library_name")).collect())
}

/// Returns a member of a list of names and values.
fn member(list: &OwnedFrame, name: &str) -> Option<String> {
    let OwnedFrame::Array(list) = list else { return None };
    let pairs = list.chunks_exact(2).filter_map(|pair| pair.first().zip(pair.last()));
    pairs.filter(|(key, _)| text(key).as_deref() == Some(name)).find_map(|(_, value)| text(value))
}
