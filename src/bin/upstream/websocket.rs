//! WebSockets of a platform: messages that open a realtime session are answered as by its signalling, every other text is
//! echoed. The upstream of the tests (`tests/support/recorder.rs`) uses this file, too.

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

/// Answers a handshake; `None` when the request is no handshake.
pub fn accept<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let upgrade = request.headers().get(header::UPGRADE)?;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?;
    if request.method() != Method::GET || !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    let proof = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    Some(response)
}

/// Serves a socket to its end and returns the kind of end: `closed 1000` after a close frame of the client, else `lost`.
pub async fn serve(upgrade: OnUpgrade, mut on_message: impl FnMut(&str)) -> String {
    let lost = |error: &dyn std::fmt::Display| format!("lost: {error}");
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return lost(&error),
    };
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    let mut closed = None;
    // After a close frame the next turn sends the answer to it, and the one after finds the end.
    while let Some(message) = socket.next().await {
        let sent = match message {
            Ok(Message::Text(text)) => {
                on_message(&text);
                socket.send(Message::text(answer(&text))).await
            }
            Ok(Message::Close(frame)) => {
                closed = Some(frame.map_or("closed".to_owned(), |frame| in_words(&frame)));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            return closed.unwrap_or_else(|| lost(&error));
        }
    }
    closed.unwrap_or_else(|| lost(&"no close frame"))
}

fn in_words(frame: &CloseFrame) -> String {
    format!("closed {} {}", u16::from(frame.code), frame.reason).trim_end().to_owned()
}

fn answer(text: &str) -> String {
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let answer = match message.get("type").and_then(Value::as_str) {
        // The media does not pass the gateway, so the address is a closed port.
        Some("livekit_join") => json!({
            "type": "livekit_room_info", "livekit_url": "ws://127.0.0.1:9", "token": "room", "room_name": "room",
            "session_id": "s"
        }),
        Some("prompt") => json!({
            "type": "prompt_ack", "prompt": message.get("prompt"), "success": true, "error": null
        }),
        Some("set_image") => json!({"type": "set_image_ack", "success": true, "error": null}),
        _ => return text.to_owned(),
    };
    answer.to_string()
}
