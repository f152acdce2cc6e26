//! A WebSocket as a platform serves it: the frames that open a realtime session are answered as its signalling would,
//! every other text comes back as it is. The upstream of the tests (`tests/support/recorder.rs`) serves with this, too.

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

/// The answer to a handshake; `None` when the request is none.
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

/// Serves a socket until either side ends it and says how that was: `closed 1000` by the client's word, else `lost`.
pub async fn serve(upgrade: OnUpgrade, mut heard: impl FnMut(&str)) -> String {
    let lost = |error: &dyn std::fmt::Display| format!("lost: {error}");
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return lost(&error),
    };
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    let mut closed = None;
    // After a close frame one more turn sends ours, and the next one finds the end.
    while let Some(message) = socket.next().await {
        let sent = match message {
            Ok(Message::Text(text)) => {
                heard(&text);
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
    closed.unwrap_or_else(|| lost(&"without a word"))
}

fn in_words(frame: &CloseFrame) -> String {
    format!("closed {} {}", u16::from(frame.code), frame.reason).trim_end().to_owned()
}

fn answer(text: &str) -> String {
    let said: Value = serde_json::from_str(text).unwrap_or_default();
    let answer = match said.get("type").and_then(Value::as_str) {
        // Nobody listens at that address: the media is no part of what stands behind the gateway.
        Some("livekit_join") => json!({
            "type": "livekit_room_info", "livekit_url": "ws://127.0.0.1:9", "token": "room", "room_name": "room",
            "session_id": "s"
        }),
        Some("prompt") => json!({
            "type": "prompt_ack", "prompt": said.get("prompt"), "success": true, "error": null
        }),
        Some("set_image") => json!({"type": "set_image_ack", "success": true, "error": null}),
        _ => return text.to_owned(),
    };
    answer.to_string()
}
