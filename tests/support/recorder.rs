//! The upstream of the tests: records every request byte for byte as soon as its headers arrive, accepts every
//! WebSocket, and records its start and end.

#[path = "../../src/bin/upstream/websocket.rs"]
mod websocket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::corpus::Headers;
use super::expect::{Seen, Session};

/// A listening upstream; it ends when dropped.
pub struct Recorder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

struct State {
    seen: Vec<Seen>,
    status: u16,
}

impl Recorder {
    pub fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("upstream: {error}"))?;
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .map_err(|error| format!("upstream: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("upstream: {error}"))?;
        let state = Arc::new(Mutex::new(State { seen: Vec::new(), status: 200 }));
        runtime.spawn(accept(listener, state.clone()));
        Ok(Self { address, state, runtime: Some(runtime) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the status of every answer from now on.
    pub fn answer_with(&self, status: u16) {
        lock(&self.state).status = status;
    }

    /// Returns all requests, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    pub fn count(&self) -> usize {
        lock(&self.state).seen.len()
    }

    /// Returns the request at this position, in the order of arrival.
    pub fn get(&self, index: usize) -> Option<Seen> {
        lock(&self.state).seen.get(index).cloned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(record(request, state).await) }
            });
            let connection =
                http1::Builder::new().max_headers(200).serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn record(mut request: Request<Incoming>, shared: Arc<Mutex<State>>) -> Response<Full<Bytes>> {
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: pairs(request.headers()),
        ..Seen::default()
    };
    let index = {
        let mut state = lock(&shared);
        state.seen.push(seen);
        state.seen.len() - 1
    };
    // As an upstream does that redirects, or shows a debugger what it got.
    let reflected: Vec<(&str, HeaderValue)> =
        [("location", HeaderValue::from_str(&request.uri().to_string()).ok())]
            .into_iter()
            .chain([("x-debug-key", request.headers().get("x-vendor-key").cloned())])
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
    let (switching, upgrade) = (websocket::accept(&request), hyper::upgrade::on(&mut request));
    let complete = receive(request.into_body(), index, &shared).await;
    let mut state = lock(&shared);
    let is_good = state.status < 300;
    if let Some(seen) = state.seen.get_mut(index) {
        seen.complete = complete;
        if let Some(switching) = switching.filter(|_| is_good) {
            seen.session = Some(Session { begun: Instant::now(), texts: Vec::new(), ended: None });
            tokio::spawn(session(upgrade, index, shared.clone()));
            return switching;
        }
    }
    let mut response = Response::new(Full::new(Bytes::from_static(br#"{"upstream":true}"#)));
    for (name, value) in &reflected {
        response.headers_mut().append(*name, value.clone());
    }
    *response.status_mut() = hyper::StatusCode::from_u16(state.status).unwrap_or_default();
    response
}

async fn session(upgrade: OnUpgrade, index: usize, shared: Arc<Mutex<State>>) {
    let change = |apply: &mut dyn FnMut(&mut Session)| {
        let mut state = lock(&shared);
        state.seen.get_mut(index).and_then(|seen| seen.session.as_mut()).map(apply);
    };
    let heard = |text: &str| change(&mut |session| session.texts.push(text.to_owned()));
    let end = websocket::serve(upgrade, heard).await;
    let now = Instant::now();
    change(&mut |session| session.ended = Some((now, end.clone())));
}

async fn receive(mut body: Incoming, index: usize, state: &Mutex<State>) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let mut state = lock(state);
        let Some(seen) = state.seen.get_mut(index) else { return false };
        match frame.into_data() {
            Ok(data) => seen.body.extend_from_slice(&data),
            Err(frame) => seen.trailers = frame.trailers_ref().map(pairs).unwrap_or_default(),
        }
    }
    true
}

/// Converts headers to the corpus's form.
pub fn pairs(headers: &HeaderMap) -> Headers {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}
