//! The same gateway as containers: `envoy/compose-test.sh`, which an operator can run too.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use libtest_mimic::{Completion, Failed};

use crate::support::require::{Piece, require, root};

/// Time limit in seconds; most of it is for building the images.
const LIMIT: &str = "300";

pub fn gateway_in_containers() -> Result<Completion, Failed> {
    match (require(Piece::Module), require(Piece::Envoy), require(Piece::Docker)) {
        (Err(skip), _, _) | (_, Err(skip), _) | (_, _, Err(skip)) => skip.end(),
        (Ok(_), Ok(_), Ok(_)) => Ok(story().map(|()| Completion::Completed)?),
    }
}

fn story() -> Result<(), String> {
    let [gateway, upstream] = free_ports().map_err(|error| error.to_string())?;
    let output = Command::new("timeout")
        .args(["--kill-after=20", LIMIT])
        .arg(root().join("envoy/compose-test.sh"))
        .env("GATEWAY_PORT", gateway.to_string())
        .env("UPSTREAM_PORT", upstream.to_string())
        .env("CALLBOUND_BIN", env!("CARGO_BIN_EXE_callbound"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("envoy/compose-test.sh: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{text}", output.status)) }
}

/// Returns two unused ports: containers cannot choose and report their own.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [one, other] = listeners.map(|listener| listener.local_addr());
    Ok([one?.port(), other?.port()])
}
