//! Connection of the operator to Redis itself, for what the bridge of the gateways may not do.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::encode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame as _};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Open connection, over plain TCP.
pub struct Redis {
    address: String,
    stream: TcpStream,
    received: Vec<u8>,
}

impl Redis {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// An address of another form, or one that does not answer.
    pub fn connect(address: &str) -> Result<Self, String> {
        let mut known = address
            .to_socket_addrs()
            // Not repeated: somebody may have put a password into it.
            .map_err(|_| "expected the address of Redis as HOST:PORT, as in 127.0.0.1:6379")?;
        let first = known.next().ok_or_else(|| format!("{address}: no such host"))?;
        let failed = |error: std::io::Error| format!("{address}: {error}; is Redis running?");
        let stream = TcpStream::connect_timeout(&first, CONNECT_TIMEOUT).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        Ok(Self { address: address.to_owned(), stream, received: Vec::new() })
    }

    /// Sends a command and returns its answer.
    ///
    /// # Errors
    ///
    /// A failed connection, or the error that Redis answers.
    pub fn call(&mut self, words: &[&str]) -> Result<OwnedFrame, String> {
        let words = words.iter().map(|word| OwnedFrame::BulkString(word.as_bytes().to_vec()));
        let command = OwnedFrame::Array(words.collect());
        let mut bytes = vec![0; command.encode_len(false)];
        encode(&mut bytes, &command, false).map_err(|error| error.to_string())?;
        self.stream.write_all(&bytes).map_err(|error| format!("{}: {error}", self.address))?;
        match self.answer()? {
            OwnedFrame::Error(error) => Err(format!("{}: Redis answers: {error}", self.address)),
            answer => Ok(answer),
        }
    }

    fn answer(&mut self) -> Result<OwnedFrame, String> {
        let failed = |address: &str| format!("{address}: no usable answer; is this the port of Redis?");
        loop {
            if let Some((frame, length)) = decode(&self.received).map_err(|_| failed(&self.address))? {
                self.received.drain(..length);
                return Ok(frame);
            }
            let mut chunk = [0; 16 << 10];
            let length = self.stream.read(&mut chunk).map_err(|_| failed(&self.address))?;
            if length == 0 {
                return Err(failed(&self.address));
            }
            self.received.extend(chunk.iter().take(length));
        }
    }
}

/// Returns an answer as text; `None` for a number, a list or nothing.
pub fn text(frame: &OwnedFrame) -> Option<String> {
    match frame {
        OwnedFrame::SimpleString(bytes) | OwnedFrame::BulkString(bytes) => {
            String::from_utf8(bytes.clone()).ok()
        }
        _ => None,
    }
}
