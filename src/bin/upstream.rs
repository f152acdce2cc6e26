//! `callbound-upstream`: the platform behind the gateway in the demo, the containers and the tests.
//!
//! Answers every request with 200, accepts every WebSocket and records all it receives, so that "the upstream received
//! nothing" can be checked. Reserved paths, on the same port:
//!
//! | request | effect |
//! |---|---|
//! | `GET /__records` | returns the requests, oldest first; of a WebSocket also its messages, its duration and its end |
//! | `DELETE /__records` | deletes the records and resets the counts |
//! | `GET /__stats` | returns the counts of requests begun and completed, of WebSockets begun, and of those open now |
//! | `PUT /__answer` | sets the answer to further requests: `{"status": 503, "delay_ms": 0}` |
//! | `DELETE /__answer` | restores the first answer |

#[path = "upstream/websocket.rs"]
mod websocket;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Most records that are kept; the oldest are dropped first.
const MAX_RECORDS: usize = 1000;
/// Bytes of each body that are kept as text; length and SHA-256 always cover the whole.
const MAX_TEXT: usize = 64 * 1024;
/// Most bytes of a `PUT /__answer`.
const MAX_ADMIN_BODY: usize = 4096;
const USAGE: &str = "usage: callbound-upstream --listen ADDRESS:PORT [--wait-ms N]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            print(&format!("callbound-upstream: {problem}"));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), String> {
    let (listen, wait) = arguments(std::env::args().skip(1))?;
    let answer = Answer { status: StatusCode::OK, delay: wait };
    let upstream = Arc::new(Upstream { first: answer, state: Mutex::new(State::new(answer)) });
    let listener = TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    print(&format!("callbound-upstream listens on {address}"));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&upstream)))),
                // Most likely out of descriptors, until other connections close.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(SocketAddr, Duration), String> {
    let (mut listen, mut wait) = (None, 0);
    while let Some(name) = given.next() {
        let value = given.next().ok_or(USAGE)?;
        match name.as_str() {
            "--listen" => {
                listen = Some(value.parse().map_err(|_| format!("--listen: `{value}` is not ADDRESS:PORT"))?)
            }
            "--wait-ms" => {
                wait = value.parse().map_err(|_| format!("--wait-ms: `{value}` is not a number"))?
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok((listen.ok_or(USAGE)?, Duration::from_millis(wait)))
}

/// Writes one line to standard output; a closed output is no reason to stop.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn connection(stream: TcpStream, upstream: Arc<Upstream>) {
    let service = service_fn(|request| {
        let upstream = Arc::clone(&upstream);
        async move { Ok::<_, Infallible>(upstream.serve(request).await) }
    });
    // Some tests break the connection on purpose; the record then has `completed: false`.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Answer to each request.
#[derive(Clone, Copy)]
struct Answer {
    status: StatusCode,
    delay: Duration,
}

struct Upstream {
    first: Answer,
    state: Mutex<State>,
}

/// Records, counts and the present answer.
struct State {
    answer: Answer,
    last_id: u64,
    begun: u64,
    completed: u64,
    sessions: u64,
    sessions_open: u64,
    records: VecDeque<Record>,
}

impl State {
    fn new(answer: Answer) -> State {
        State {
            answer,
            last_id: 0,
            begun: 0,
            completed: 0,
            sessions: 0,
            sessions_open: 0,
            records: VecDeque::new(),
        }
    }

    /// Drops the records; requests in progress keep their ids and are counted when they end.
    fn clear(&mut self) {
        let State { answer, last_id, sessions_open, .. } = *self;
        *self = State { last_id, sessions_open, ..State::new(answer) };
    }

    fn begin(&mut self, mut record: Record) -> u64 {
        self.begun += 1;
        self.last_id += 1;
        record.id = self.last_id;
        self.records.push_back(record);
        if self.records.len() > MAX_RECORDS {
            self.records.pop_front();
        }
        self.last_id
    }

    fn record(&mut self, id: u64) -> Option<&mut Record> {
        self.records.iter_mut().rev().find(|record| record.id == id)
    }
}

/// One request, as far as it was received.
struct Record {
    id: u64,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    digest: Sha256,
    length: u64,
    text: Vec<u8>,
    trailers: Vec<(String, String)>,
    completed: bool,
    session: Option<Session>,
}

/// A request that became a WebSocket.
struct Session {
    begun: Instant,
    texts: Vec<String>,
    /// Further bytes of messages that are kept.
    room: usize,
    /// Duration and the kind of end, once it has ended.
    ended: Option<(Duration, String)>,
}

impl Session {
    fn json(&self) -> Value {
        let (lasted, end) = self.ended.as_ref().map(|(lasted, end)| (lasted.as_millis(), end)).unzip();
        json!({"open": self.ended.is_none(), "texts": self.texts, "lasted_ms": lasted, "end": end})
    }
}

impl Record {
    fn new<B>(request: &Request<B>) -> Record {
        Record {
            id: 0,
            method: request.method().to_string(),
            path: request.uri().to_string(),
            headers: pairs(request.headers()),
            digest: Sha256::new(),
            length: 0,
            text: Vec::new(),
            trailers: Vec::new(),
            completed: false,
            session: None,
        }
    }

    fn data(&mut self, data: &[u8]) {
        self.digest.update(data);
        self.length += data.len() as u64;
        let room = MAX_TEXT.saturating_sub(self.text.len());
        self.text.extend(data.iter().take(room));
    }

    fn add_message(&mut self, text: &str) {
        let Some(session) = &mut self.session else { return };
        // Each message costs one byte more, so that empty ones are limited too.
        if let Some(room) = session.room.checked_sub(text.len() + 1) {
            session.room = room;
            session.texts.push(text.to_owned());
        }
    }

    fn json(&self) -> Value {
        let digest = self.digest.clone().finalize();
        json!({
            "id": self.id,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "trailers": self.trailers,
            "body_length": self.length,
            "body_sha256": digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "body": String::from_utf8_lossy(&self.text),
            "completed": self.completed,
            "session": self.session.as_ref().map(Session::json),
        })
    }
}

fn pairs(headers: &hyper::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

type Reply = Response<Full<Bytes>>;

impl Upstream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/__records") => reply(StatusCode::OK, &self.records()),
            (&Method::DELETE, "/__records") => {
                self.state().clear();
                reply(StatusCode::OK, &json!({}))
            }
            (&Method::GET, "/__stats") => reply(StatusCode::OK, &self.stats()),
            (&Method::PUT, "/__answer") => self.set_answer(request.into_body()).await,
            (&Method::DELETE, "/__answer") => {
                self.state().answer = self.first;
                reply(StatusCode::OK, &json!({}))
            }
            _ => self.platform(&path, request).await,
        }
    }

    fn records(&self) -> Value {
        self.state().records.iter().map(Record::json).collect()
    }

    fn stats(&self) -> Value {
        let state = self.state();
        json!({
            "begun": state.begun,
            "completed": state.completed,
            "sessions": state.sessions,
            "sessions_open": state.sessions_open,
        })
    }

    async fn set_answer(&self, body: Incoming) -> Reply {
        let body = http_body_util::Limited::new(body, MAX_ADMIN_BODY).collect().await;
        let answer: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let member = |name: &str| answer.as_ref()?.get(name)?.as_u64();
        let status = member("status").and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
        let Some(status) = status.filter(|status| !status.is_informational()) else {
            return reply(
                StatusCode::BAD_REQUEST,
                &json!({"error": "give {\"status\": 200-999, \"delay_ms\": 0}"}),
            );
        };
        let delay = Duration::from_millis(member("delay_ms").unwrap_or(0));
        self.state().answer = Answer { status, delay };
        reply(StatusCode::OK, &json!({}))
    }

    /// Serves any other path: records the request once its headers are received, answers after its body.
    async fn platform(self: Arc<Self>, path: &str, mut request: Request<Incoming>) -> Reply {
        let id = self.state().begin(Record::new(&request));
        let (switching, upgrade) = (websocket::accept(&request), hyper::upgrade::on(&mut request));
        if !self.receive(id, request.into_body()).await {
            return reply(StatusCode::BAD_REQUEST, &json!({"error": "unfinished body"}));
        }
        let answer = self.state().answer;
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        if let Some(switching) = switching.filter(|_| answer.status.is_success()) {
            self.begin_session(id);
            tokio::spawn(self.session(id, upgrade));
            return switching;
        }
        reply(answer.status, &json!({"data": {"ok": answer.status.is_success(), "path": path}}))
    }

    fn begin_session(&self, id: u64) {
        let mut state = self.state();
        state.sessions += 1;
        state.sessions_open += 1;
        if let Some(record) = state.record(id) {
            let begun = Instant::now();
            record.session = Some(Session { begun, texts: Vec::new(), room: MAX_TEXT, ended: None });
        }
    }

    /// Serves a WebSocket, after its handshake, to its end.
    async fn session(self: Arc<Self>, id: u64, upgrade: OnUpgrade) {
        let record_message = |text: &str| {
            if let Some(record) = self.state().record(id) {
                record.add_message(text);
            }
        };
        let end = websocket::serve(upgrade, record_message).await;
        let mut state = self.state();
        state.sessions_open = state.sessions_open.saturating_sub(1);
        if let Some(session) = state.record(id).and_then(|record| record.session.as_mut()) {
            session.ended = Some((session.begun.elapsed(), end));
        }
    }

    /// Reads the body to its end; false when it is cut off.
    async fn receive(&self, id: u64, mut body: Incoming) -> bool {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let mut state = self.state();
            let Some(record) = state.record(id) else { continue };
            match frame.into_data() {
                Ok(data) => record.data(&data),
                Err(frame) => record.trailers = frame.trailers_ref().map(pairs).unwrap_or_default(),
            }
        }
        let mut state = self.state();
        state.completed += 1;
        if let Some(record) = state.record(id) {
            record.completed = true;
        }
        true
    }
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}
