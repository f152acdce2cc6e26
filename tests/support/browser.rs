//! A headless Chromium, and an application's own server whose pages it visits: two of them are two origins.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::gateway::command_that_ends_with_us;
use super::poll;

/// Server of an application: serves a page and receives the page's findings.
pub struct Site {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct State {
    page: String,
    findings: Option<Value>,
}

impl Site {
    pub fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(request, state.clone()));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, state, _runtime: runtime })
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a page in a browser of its own and waits for the value its script passes to `report`. The constants are
    /// defined in the script.
    pub fn visit(
        &self,
        chromium: &Path,
        constants: &[(&str, String)],
        script: &str,
    ) -> Result<Value, String> {
        let constants: String =
            constants.iter().map(|(name, value)| format!("const {name} = {};\n", json!(value))).collect();
        let report =
            "const report = found => fetch('/findings', {method: 'POST', body: JSON.stringify(found)});";
        let page =
            format!("<!doctype html><title>test</title><script>{constants}{report}\n{script}</script>");
        self.change(|state| *state = State { page, findings: None });
        let _browser = Browser::open(chromium, &format!("{}/", self.origin()))?;
        poll("the page's findings", Duration::from_secs(40), || self.change(|state| state.findings.take()))
    }

    fn change<T>(&self, apply: impl FnOnce(&mut State) -> T) -> T {
        apply(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_findings = request.method() == Method::POST;
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let page = match state.lock() {
        Ok(mut state) if is_findings => {
            state.findings = serde_json::from_slice(&body).ok();
            String::new()
        }
        Ok(state) => state.page.clone(),
        Err(_) => String::new(),
    };
    let mut response = Response::new(Full::new(Bytes::from(page)));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/html"));
    Ok(response)
}

/// A browser with a profile of its own; it ends, by its id, when this is dropped.
struct Browser {
    child: Child,
    profile: PathBuf,
}

impl Browser {
    fn open(chromium: &Path, url: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("browser-{}-{number}", std::process::id());
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let child = command_that_ends_with_us(chromium)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", chromium.display()))?;
        Ok(Self { child, profile })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
