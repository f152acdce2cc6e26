//! Clients. HTTP/1.1 is written by hand, so that a test can send what no library would (odd bytes, slow chunks, half a
//! request); HTTP/2 is hyper's. Both keep their connection alive, and every operation has a time limit.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::client::conn::http2;
use hyper::{HeaderMap, Method};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::corpus::{Framing, Headers, Request};
use super::expect::Answer;
use super::recorder::pairs;

/// Time limit of every operation.
const LIMIT: Duration = Duration::from_secs(25);

/// One HTTP/1.1 connection.
pub struct Http1 {
    stream: TcpStream,
    /// Received and not read yet.
    received: Vec<u8>,
}

impl Http1 {
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, LIMIT).map_err(text)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(text)?;
        stream.set_write_timeout(Some(LIMIT)).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends a request and reads its answer, which may arrive before the request is sent.
    pub fn exchange(&mut self, request: &Request) -> Result<Answer, String> {
        let mut writer = self.stream.try_clone().map_err(text)?;
        std::thread::scope(|scope| {
            // The gateway may close the connection of a request it has refused.
            scope.spawn(move || drop(write_request(&mut writer, request)));
            let answer = self.read_answer_to(&request.method);
            if answer.is_err() {
                let _ = self.stream.shutdown(Shutdown::Both);
            }
            answer
        })
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(text)
    }

    /// Closes the connection without reading the answer.
    pub fn abandon(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub fn read_answer(&mut self) -> Result<Answer, String> {
        self.read_answer_to("POST")
    }

    fn read_answer_to(&mut self, method: &str) -> Result<Answer, String> {
        loop {
            let head = self.read_until(b"\r\n\r\n")?;
            let mut answer = parse_head(&head)?;
            if answer.status / 100 == 1 && answer.status != 101 {
                continue;
            }
            if method != "HEAD" {
                answer.body = self.read_body(&answer)?;
            }
            return Ok(answer);
        }
    }

    fn read_body(&mut self, answer: &Answer) -> Result<Vec<u8>, String> {
        let is_chunked = answer.header("transfer-encoding").is_some_and(|value| value == "chunked");
        if is_chunked {
            return self.read_chunks();
        }
        match answer.header("content-length") {
            Some(length) => self.take(length.parse().map_err(|_| "a content-length that is none")?),
            None if matches!(answer.status, 101 | 204 | 304) => Ok(Vec::new()),
            None => self.read_to_end(),
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let size = String::from_utf8_lossy(&line).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| "a chunk without a size")?;
            let chunk = self.take(size + 2)?;
            body.extend_from_slice(chunk.get(..size).unwrap_or_default());
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>, String> {
        while self.read_more()? > 0 {}
        Ok(std::mem::take(&mut self.received))
    }

    fn read_until(&mut self, end: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            if self.read_more()? == 0 {
                let got = self.received.escape_ascii();
                return Err(format!("the connection was closed before an answer (got \"{got}\")"));
            }
        }
    }

    fn take(&mut self, size: usize) -> Result<Vec<u8>, String> {
        while self.received.len() < size {
            if self.read_more()? == 0 {
                return Err("the connection was closed in the middle of an answer".to_owned());
            }
        }
        let rest = self.received.split_off(size);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn read_more(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 16 * 1024];
        let size = self.stream.read(&mut buffer).map_err(|error| format!("no answer: {error}"))?;
        self.received.extend_from_slice(buffer.get(..size).unwrap_or_default());
        Ok(size)
    }
}

/// The head of an HTTP/1.1 request as it goes on the wire.
pub fn head(request: &Request) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.path).into_bytes();
    let has = |name: &str| request.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut headers: Headers = Vec::new();
    if !has("host") {
        headers.push(("host".to_owned(), b"api.example.com".to_vec()));
    }
    headers.extend(request.headers.iter().cloned());
    if let Some(body) = &request.body {
        if !request.framing.has_length() {
            headers.push(("transfer-encoding".to_owned(), b"chunked".to_vec()));
        } else if !has("content-length") {
            headers.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        }
    }
    for (name, value) in &headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A piece of a chunked body.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", piece.len());
    [size.as_bytes(), piece, b"\r\n"].concat()
}

fn write_request(stream: &mut TcpStream, request: &Request) -> std::io::Result<()> {
    stream.write_all(&head(request))?;
    for piece in request.pieces() {
        std::thread::sleep(request.framing.pause());
        let wire = if request.framing.has_length() { piece.to_vec() } else { chunk(piece) };
        stream.write_all(&wire)?;
    }
    if request.body.is_some() && !request.framing.has_length() {
        std::thread::sleep(request.framing.pause());
        stream.write_all(b"0\r\n")?;
        if request.framing.has_trailers() {
            for (name, value) in &request.trailers {
                stream.write_all(&[name.as_bytes(), b": ", value, b"\r\n"].concat())?;
            }
        }
        stream.write_all(b"\r\n")?;
    }
    stream.flush()
}

fn parse_head(head: &[u8]) -> Result<Answer, String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| format!("no HTTP answer: {text}"))?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().as_bytes().to_vec()));
    Ok(Answer { status, headers: headers.collect(), body: Vec::new() })
}

/// One HTTP/2 connection, with prior knowledge.
pub struct Http2 {
    runtime: Runtime,
    sender: http2::SendRequest<Frames>,
}

impl Http2 {
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(text)?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.map_err(text)?;
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = limited(handshake).await?.map_err(text)?;
            tokio::spawn(connection);
            Ok::<_, String>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Sends a request and reads its answer.
    pub fn exchange(&mut self, request: &Request) -> Result<Answer, String> {
        let (open, body) = Frames::channel(request.body.is_none());
        for piece in request.pieces() {
            open.data(piece);
        }
        if request.framing.has_trailers() {
            open.trailers(&request.trailers);
        }
        drop(open);
        self.begin(request, body)?.answer(self)
    }

    /// Sends a request whose body comes later.
    pub fn begin(&mut self, request: &Request, body: Frames) -> Result<Started, String> {
        let request = h2_request(request, body)?;
        let sending = self.sender.send_request(request);
        let task = self.runtime.spawn(async move {
            let response = sending.await.map_err(|error| format!("no answer: {error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(text)?.to_bytes().to_vec();
            Ok::<_, String>(Answer { status: parts.status.as_u16(), headers: pairs(&parts.headers), body })
        });
        Ok(Started(task))
    }
}

/// A request under way over HTTP/2.
pub struct Started(tokio::task::JoinHandle<Result<Answer, String>>);

impl Started {
    pub fn answer(self, connection: &Http2) -> Result<Answer, String> {
        connection.runtime.block_on(async { limited(self.0).await?.map_err(text)? })
    }
}

async fn limited<F: Future>(future: F) -> Result<F::Output, String> {
    tokio::time::timeout(LIMIT, future).await.map_err(|_| format!("nothing within {LIMIT:?}"))
}

fn h2_request(request: &Request, body: Frames) -> Result<hyper::Request<Frames>, String> {
    let method = Method::from_bytes(request.method.as_bytes()).map_err(text)?;
    let target = format!("http://api.example.com{}", request.path);
    let mut builder = hyper::Request::builder().method(method).uri(target);
    for (name, value) in &request.headers {
        builder = builder.header(name.as_str(), value.as_slice());
    }
    if let (Some(body), Framing::H2) = (&request.body, request.framing) {
        builder = builder.header("content-length", body.len());
    }
    builder.body(body).map_err(text)
}

/// A request body that is written while it is sent.
pub struct Frames {
    frames: mpsc::UnboundedReceiver<Frame<Bytes>>,
    is_empty: bool,
}

/// The writing end of [`Frames`]; dropping it ends the body.
pub struct Open(mpsc::UnboundedSender<Frame<Bytes>>);

impl Frames {
    /// `is_empty`: the headers end the request.
    pub fn channel(is_empty: bool) -> (Open, Self) {
        let (sender, frames) = mpsc::unbounded_channel();
        (Open(sender), Self { frames, is_empty })
    }
}

impl Open {
    pub fn data(&self, bytes: &[u8]) {
        let _ = self.0.send(Frame::data(Bytes::copy_from_slice(bytes)));
    }

    pub fn trailers(&self, trailers: &Headers) {
        let mut map = HeaderMap::new();
        for (name, value) in trailers {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes());
            let value = hyper::header::HeaderValue::from_bytes(value);
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        let _ = self.0.send(Frame::trailers(map));
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames.poll_recv(context).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_empty { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// A whole request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &Request) -> Result<Answer, String> {
    if request.framing.is_h2() {
        Http2::connect(address)?.exchange(request)
    } else {
        Http1::connect(address)?.exchange(request)
    }
}

/// Result of a WebSocket handshake.
pub enum Handshake {
    Open(Box<Socket>),
    Refused(Answer),
}

impl Handshake {
    /// The open socket; a refusal is an error.
    pub fn opened(self) -> Result<Socket, String> {
        match self {
            Self::Open(socket) => Ok(*socket),
            Self::Refused(answer) => Err(format!("refused: {} {}", answer.status, answer.text())),
        }
    }

    /// The refusal; an open socket is an error.
    pub fn refused(self) -> Result<Answer, String> {
        match self {
            Self::Open(_) => Err("it was allowed".to_owned()),
            Self::Refused(answer) => Ok(answer),
        }
    }
}

/// Opens a WebSocket on a connection of its own; see [`Request::websocket`].
pub fn websocket(address: SocketAddr, request: &Request) -> Result<Handshake, String> {
    let mut connection = Http1::connect(address)?;
    let answer = connection.exchange(request)?;
    if answer.status != 101 {
        return Ok(Handshake::Refused(answer));
    }
    Ok(Handshake::Open(Box::new(Socket::new(connection)?)))
}

/// Open WebSocket; dropping it closes the connection without a close frame.
pub struct Socket {
    stream: WebSocketStream<tokio::net::TcpStream>,
    runtime: Runtime,
    /// Time at which the handshake was answered.
    pub opened: Instant,
}

impl Socket {
    fn new(connection: Http1) -> Result<Self, String> {
        let opened = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let Http1 { stream, received } = connection;
        stream.set_nonblocking(true).map_err(text)?;
        let stream = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).map_err(text)?;
            Ok::<_, String>(WebSocketStream::from_partially_read(stream, received, Role::Client, None).await)
        })?;
        Ok(Self { stream, runtime, opened })
    }

    pub fn send(&mut self, message: &str) -> Result<(), String> {
        let sending = self.stream.send(Message::text(message));
        self.runtime.block_on(limited(sending))?.map_err(text)
    }

    /// Returns the next text; a closed socket is an error.
    pub fn receive(&mut self) -> Result<String, String> {
        self.runtime.block_on(limited(async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        return Err("the socket is closed".to_owned());
                    }
                    Some(Ok(_)) => {}
                }
            }
        }))?
    }

    /// Sends a text and returns the answer.
    pub fn ask(&mut self, message: &str) -> Result<String, String> {
        self.send(message)?;
        self.receive()
    }

    /// Waits until the other side closes the socket and returns the time.
    pub fn wait_until_closed(&mut self) -> Result<Instant, String> {
        let ending = async {
            while let Some(Ok(message)) = self.stream.next().await {
                if message.is_close() {
                    break;
                }
            }
        };
        self.runtime.block_on(limited(ending))?;
        Ok(Instant::now())
    }

    /// Closes the socket with a close frame.
    pub fn close(mut self) -> Result<(), String> {
        let closing = async {
            let _ = self.stream.close(None).await;
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        self.runtime.block_on(limited(closing))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
