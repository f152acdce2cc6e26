//! A client that keeps its connections and checks every answer. It does not run in Envoy's process, so it is not counted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::at;

/// Time limit for one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Connections, each with one request under way.
const CONNECTIONS: usize = 4;

/// Required status and header of an answer.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub status: u16,
    /// Header that proves that the filter did its work.
    pub header: Option<&'static str>,
}

impl Wanted {
    fn check(self, head: &str) -> Result<(), String> {
        let answered = head.get(9..12).and_then(|code| code.parse().ok());
        let names = || head.lines().filter_map(|line| Some(line.split_once(':')?.0));
        let is_there = |name: &str| names().any(|found| found.eq_ignore_ascii_case(name));
        if answered == Some(self.status) && self.header.is_none_or(is_there) {
            return Ok(());
        }
        let header = self.header.map(|name| format!(" with {name}")).unwrap_or_default();
        Err(format!("wanted {}{header}, got: {head}", self.status))
    }
}

/// Connections to one listener, kept alive.
pub struct Client(Vec<Line>);

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let line = |_| {
            let stream = TcpStream::connect_timeout(&address, LIMIT).map_err(at(address))?;
            stream.set_nodelay(true).map_err(at(address))?;
            stream.set_read_timeout(Some(LIMIT)).map_err(at(address))?;
            Ok(Line { stream, received: Vec::new() })
        };
        (0..CONNECTIONS).map(line).collect::<Result<_, String>>().map(Self)
    }

    /// Sends `count` requests, one per connection at a time, and checks every answer.
    pub fn run(
        &mut self,
        count: usize,
        wanted: Wanted,
        mut request: impl FnMut(usize) -> Vec<u8>,
    ) -> Result<(), String> {
        let mut next = 0;
        while next < count {
            let lines = self.0.iter_mut().take(count - next);
            let mut asked = Vec::new();
            for line in lines {
                line.stream.write_all(&request(next)).map_err(at("request"))?;
                next += 1;
                asked.push(line);
            }
            for line in asked {
                wanted.check(&line.message()?)?;
            }
        }
        Ok(())
    }

    /// Sends requests one after the other on one connection, and returns the duration of each.
    pub fn time(
        &mut self,
        count: usize,
        wanted: Wanted,
        mut request: impl FnMut(usize) -> Vec<u8>,
    ) -> Result<Vec<Duration>, String> {
        let line = self.0.first_mut().ok_or("no connection")?;
        let mut times = Vec::with_capacity(count);
        for index in 0..count {
            let message = request(index);
            let begin = Instant::now();
            line.stream.write_all(&message).map_err(at("request"))?;
            let head = line.message()?;
            times.push(begin.elapsed());
            wanted.check(&head)?;
        }
        Ok(times)
    }
}

struct Line {
    stream: TcpStream,
    /// Received and not yet read.
    received: Vec<u8>,
}

impl Line {
    /// Reads one message with a `content-length` or no body, and returns its head.
    fn message(&mut self) -> Result<String, String> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                let whole = end + 4 + content_length(&head);
                if self.received.len() >= whole {
                    self.received.drain(..whole);
                    return Ok(head);
                }
            }
            match self.stream.read(&mut chunk).map_err(at("answer"))? {
                0 => return Err("the connection was closed".to_owned()),
                size => self.received.extend_from_slice(&chunk[..size]),
            }
        }
    }
}

fn content_length(head: &str) -> usize {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}
