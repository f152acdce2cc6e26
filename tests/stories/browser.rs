//! A headless Chromium: a page of another origin calls with a token, reads a refusal, and cannot read a mint.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::{ALLOWED, KEY, OWNED, World, policy, same};
use crate::support::gateway::{Pieces, command_that_ends_with_us, unchanged};
use crate::support::poll;
use crate::support::require::{Piece, require};

pub fn page_reads_a_refusal() -> Result<Completion, Failed> {
    let pieces = Pieces::find();
    match (pieces, require(Piece::Chromium)) {
        (Err(skip), _) | (_, Err(skip)) => skip.end(),
        (Ok(pieces), Ok(chromium)) => Ok(story(&pieces, &chromium).map(|()| Completion::Completed)?),
    }
}

fn story(pieces: &Pieces, chromium: &Path) -> Result<(), String> {
    let site = Site::start()?;
    let origin: &'static str = Box::leak(format!("http://{}", site.address).into_boxed_str());
    let world = World::start_with(pieces, &policy().to_string(), &[origin], &unchanged)?;
    site.serve(page(&world)?);
    let browser = Browser::open(chromium, &format!("{origin}/"))?;
    let findings = poll("the page's findings", Duration::from_secs(40), || site.findings());
    drop(browser);
    let findings = findings?;

    same("an allowed call", &findings["allowed"]["status"], &json!(200))?;
    same("a refused call", &findings["refused"]["status"], &json!(403))?;
    same("its reason, read by the page", &findings["refused"]["body"]["error"]["code"], &json!("forbidden"))?;
    same("an expired credential", &findings["stranger"]["status"], &json!(401))?;
    same("the mint route", &findings["mint"], &json!({"unreadable": true}))?;
    world.upstream_saw(1)
}

/// The script does what an application would: `fetch` with an `Authorization` header, hence with a preflight.
fn page(world: &World) -> Result<String, String> {
    let script = r#"
      const post = async (path, credential, body) => {
        try {
          const response = await fetch(GATEWAY + path, {
            method: 'POST', body: JSON.stringify(body),
            headers: {'authorization': 'Bearer ' + credential, 'content-type': 'application/json'},
          });
          return {status: response.status, body: await response.json()};
        } catch (error) {
          return {unreadable: true};
        }
      };
      const run = async () => {
        const call = to => ({from_number: OWNED, to_number: to});
        const findings = {
          allowed: await post('/v1/calls', TOKEN, call(ALLOWED)),
          refused: await post('/v1/calls', TOKEN, call('+15550009999')),
          stranger: await post('/v1/calls', 'ct_e30.e30.e30', call(ALLOWED)),
          mint: await post('/v1/client-tokens', KEY, {from_numbers: [OWNED]}),
        };
        await fetch('/findings', {method: 'POST', body: JSON.stringify(findings)});
      };
      run();"#;
    let constants = [
        ("GATEWAY", format!("http://{}", world.address())),
        ("TOKEN", world.mint()?),
        ("OWNED", OWNED.to_owned()),
        ("ALLOWED", ALLOWED.to_owned()),
        ("KEY", KEY.to_owned()),
    ];
    let constants: String =
        constants.iter().map(|(name, value)| format!("const {name} = {};\n", json!(value))).collect();
    Ok(format!("<!doctype html><title>test</title><script>{constants}{script}</script>"))
}

/// The application's own server: hands out the page and takes its findings.
struct Site {
    address: SocketAddr,
    state: Arc<Mutex<(String, Option<Value>)>>,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = Arc::new(Mutex::new((String::new(), None)));
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

    fn serve(&self, page: String) {
        if let Ok(mut state) = self.state.lock() {
            state.0 = page;
        }
    }

    fn findings(&self) -> Option<Value> {
        self.state.lock().ok()?.1.clone()
    }
}

async fn answer(
    request: HttpRequest<Incoming>,
    state: Arc<Mutex<(String, Option<Value>)>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_findings = request.method() == Method::POST;
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let page = match state.lock() {
        Ok(mut state) if is_findings => {
            state.1 = serde_json::from_slice(&body).ok();
            String::new()
        }
        Ok(state) => state.0.clone(),
        Err(_) => String::new(),
    };
    let mut response = Response::new(Full::new(Bytes::from(page)));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/html"));
    Ok(response)
}

/// A browser with a profile of its own; it ends, by its id, when this is dropped.
struct Browser {
    child: Child,
    profile: std::path::PathBuf,
}

impl Browser {
    fn open(chromium: &Path, url: &str) -> Result<Self, String> {
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{}", std::process::id()));
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
