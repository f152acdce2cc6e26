//! A fake bridge that answers with garbage, not at all, too late, or with the answer to another request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client;
use super::corpus::Request;
use super::poll;

/// Behaviour of a fake bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Answers 200 with this body.
    Answers(&'static str),
    /// Answers this status with an empty body.
    Status(u16),
    /// Reads and never answers.
    Hangs,
    /// Accepts the connection and closes it.
    Closes,
    /// Passes the request on at once and delays the answer by this time.
    Slow(Duration),
    /// Passes the request on and closes instead of answering.
    Swallows,
    /// Passes the request on and closes in the middle of the answer.
    CutsShort,
    /// Passes the request on and answers with the previous answer, as a bridge does that confuses a new client with a
    /// disconnected one.
    Previous,
}

/// Fake bridge on the port of the real one; it ends when dropped.
pub struct FakeBridge {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    /// Address of the real bridge.
    behind: SocketAddr,
    behaviour: Behaviour,
    is_over: AtomicBool,
    connections: AtomicUsize,
    longest_head: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    previous: Mutex<Vec<u8>>,
}

impl FakeBridge {
    pub fn start(address: SocketAddr, behind: SocketAddr, behaviour: Behaviour) -> Result<Self, String> {
        // The previous listener may still hold the port.
        let listener = poll("the bridge's port", Duration::from_secs(5), || TcpListener::bind(address).ok())?;
        let shared = Arc::new(Shared {
            address,
            behind,
            behaviour,
            is_over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            longest_head: AtomicUsize::new(0),
            open: Mutex::default(),
            previous: Mutex::new(br#"{"FCALL":[1]}"#.to_vec()),
        });
        let server = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &server));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns the bytes of the longest head of a request; 0 before the first.
    pub fn longest_head(&self) -> usize {
        self.shared.longest_head.load(Ordering::Relaxed)
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FakeBridge {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.shared.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if let Ok(copy) = stream.try_clone() {
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            let _ = serve(&stream, &shared);
            // The copy above would keep it open.
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// Serves one connection until it has no more requests.
fn serve(mut stream: &TcpStream, shared: &Shared) -> Option<()> {
    if shared.behaviour == Behaviour::Closes {
        return None;
    }
    let mut received = Vec::new();
    loop {
        let (body, length) = read_request(stream, &mut received)?;
        shared.longest_head.fetch_max(length - body.len(), Ordering::Relaxed);
        let pass_on = || {
            let request = Request { body: Some(body.clone()), ..Request::new("POST", "/") };
            client::exchange(shared.behind, &request).ok()
        };
        match shared.behaviour {
            Behaviour::Closes => return None,
            Behaviour::Garbage => {
                stream.write_all(b"\x00\x01\xff this is no HTTP\r\n\r\n").ok()?;
                return None;
            }
            Behaviour::Answers(text) => answer(stream, 200, text.as_bytes(), false)?,
            Behaviour::Status(status) => answer(stream, status, b"", false)?,
            Behaviour::Hangs => std::thread::park_timeout(Duration::from_secs(60)),
            Behaviour::Slow(delay) => {
                let good = pass_on()?;
                std::thread::sleep(delay);
                answer(stream, good.status, &good.body, false)?;
            }
            Behaviour::Swallows => {
                pass_on()?;
                return None;
            }
            Behaviour::CutsShort => {
                let good = pass_on()?;
                answer(stream, good.status, &good.body, true)?;
                return None;
            }
            Behaviour::Previous => {
                let good = pass_on()?;
                let mut previous = shared.previous.lock().unwrap_or_else(PoisonError::into_inner);
                let body = std::mem::replace(&mut *previous, good.body);
                drop(previous);
                answer(stream, 200, &body, false)?;
            }
        }
    }
}

fn answer(mut stream: &TcpStream, status: u16, body: &[u8], is_cut: bool) -> Option<()> {
    let mut wire = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    wire.extend_from_slice(if is_cut { body.get(..body.len() / 2)? } else { body });
    stream.write_all(&wire).ok()
}

/// Reads the next request, with a length or in chunks: its body, and its length.
fn read_request(mut stream: &TcpStream, received: &mut Vec<u8>) -> Option<(Vec<u8>, usize)> {
    loop {
        if let Some((body, length)) = whole_request(received) {
            received.drain(..length);
            return Some((body, length));
        }
        let mut buffer = [0; 16 * 1024];
        let size = stream.read(&mut buffer).ok().filter(|size| *size > 0)?;
        received.extend_from_slice(buffer.get(..size)?);
    }
}

/// Returns the body of the first request in these bytes, and the length of that request.
fn whole_request(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    let value = |name: &str| Some(text.split("\r\n").find_map(|line| line.strip_prefix(name))?.trim());
    if let Some(length) = value("content-length:").and_then(|value| value.parse::<usize>().ok()) {
        return Some((bytes.get(head..head + length)?.to_vec(), head + length));
    }
    let (mut body, mut at) = (Vec::new(), head);
    loop {
        let end = bytes.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(bytes.get(at..at + end)?).ok()?, 16).ok()?;
        let chunk = at + end + 2;
        body.extend_from_slice(bytes.get(chunk..chunk + size)?);
        at = chunk + size + 2;
        if size == 0 {
            return (bytes.len() >= at).then_some((body, at));
        }
    }
}
