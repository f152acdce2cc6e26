//! The state of one stream.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Pause,
}

pub(super) enum Frame {
    Headers { end: bool },
    Body { bytes: Vec<u8>, end: bool },
    Trailers(Pairs),
}

impl Frame {
    pub(super) fn ends(&self) -> bool {
        match self {
            Frame::Headers { end } | Frame::Body { end, .. } => *end,
            Frame::Trailers(_) => true,
        }
    }
}

/// Effect that Envoy defers until the callback has returned.
pub(super) enum Deferred {
    Resume(u32),
    ResumeResponse(u32),
    Reply(u32, Reply),
}

impl Deferred {
    pub(super) fn is_of(&self, context: u32) -> bool {
        match self {
            Self::Resume(id) | Self::ResumeResponse(id) | Self::Reply(id, _) => *id == context,
        }
    }
}

#[derive(Default)]
pub(super) struct StreamState {
    pub(super) root: u32,
    pub(super) stop_iteration_flag: bool,
    /// Instance in which its context was created.
    pub(super) generation: u32,
    pub(super) headers: Pairs,
    /// nginx's state besides the headers.
    pub(super) nginx: Option<Nginx>,
    /// A buffer filter follows this one and holds the request.
    pub(super) has_filter_behind: bool,
    pub(super) behind: Option<Upstream>,
    /// Bytes shown to the filter and not released yet.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<Pairs>,
    /// Frames the filter has not been shown yet.
    pub(super) backlog: VecDeque<Frame>,
    /// Pause without the flag: no callback until resumed.
    pub(super) stopped: bool,
    /// The end of the request was shown to the filter.
    pub(super) ended: bool,
    pub(super) upstream: Option<Upstream>,
    pub(super) response: Option<Response>,
    pub(super) properties: BTreeMap<String, Vec<u8>>,
    pub(super) reset: bool,
    pub(super) logging: bool,
    pub(super) trapped: Option<String>,
    /// The host answered by itself, with this status, because the module trapped.
    pub(super) failed: Option<u32>,
}

impl StreamState {
    pub(super) fn new(root: u32, generation: u32, request: &Request, world: &World) -> StreamState {
        let nginx = world.host.has_phases.then(|| Nginx::new(request, world));
        let headers = match &nginx {
            Some(_) => nginx::real_headers(&request.headers, world.host),
            None => pairs(request.headers.clone()),
        };
        // `callbound envoy` gives requests with `upgrade` a route without the buffer filter, which would wait for an
        // end that never comes.
        let has_filter_behind = world.host.buffer_filter && first(&headers, "upgrade").is_none();
        let stop_iteration_flag = request.stop_iteration_flag && world.host.holds_headers;
        StreamState {
            root,
            generation,
            stop_iteration_flag,
            headers,
            nginx,
            has_filter_behind,
            ..StreamState::default()
        }
    }

    /// Releases everything held so far.
    pub(super) fn release(&mut self) {
        let next = if self.has_filter_behind { &mut self.behind } else { &mut self.upstream };
        let next =
            next.get_or_insert_with(|| Upstream { headers: self.headers.clone(), ..Upstream::default() });
        next.body.append(&mut self.body);
        next.trailers.clone_from(&self.trailers);
        next.complete = self.ended;
        if next.complete && self.has_filter_behind {
            self.upstream = self.behind.clone();
        }
    }

    /// Returns the part that the filter has released.
    fn gone(&self) -> Option<&Upstream> {
        self.behind.as_ref().or(self.upstream.as_ref())
    }

    /// Request headers (0) and trailers (1) can be changed until they are released.
    pub(super) fn holds(&self, map: u32) -> bool {
        self.gone().is_none_or(|gone| map == 1 && !gone.complete)
    }

    /// Returns true if no more of the request is shown: it was answered, reset, or is at its end.
    pub(super) fn over(&self) -> bool {
        self.reset || self.logging || self.response.is_some() || self.failed.is_some()
    }

    pub(super) fn held(&self) -> bool {
        match &self.response {
            _ if self.reset || self.failed.is_some() => false,
            Some(response) => !response.sent(),
            None if self.nginx.is_some() => self.upstream.is_none(),
            None => {
                self.upstream.is_none()
                    || !self.body.is_empty()
                    || !self.backlog.is_empty()
                    || self.end_is_held()
            }
        }
    }

    pub(super) fn end_is_held(&self) -> bool {
        self.ended && self.upstream.as_ref().is_some_and(|upstream| !upstream.complete)
    }

    pub(super) fn is_head(&self) -> bool {
        let method = self.nginx.as_ref().map(|nginx| nginx.method.as_slice());
        method.or(first(&self.headers, ":method")) == Some(b"HEAD")
    }

    pub(super) fn outcome(&self) -> Outcome {
        let sent = self.response.as_ref().filter(|response| response.sent());
        let by = |source| sent.filter(|response| response.source == source).map(Response::as_client_sees_it);
        Outcome {
            reply: by(Source::Filter),
            upstream: self.upstream.clone(),
            response: by(Source::Upstream),
            properties: self.properties.clone(),
            held: self.held(),
            reset: self.reset,
            trapped: self.trapped.clone(),
            failed: self.failed,
            ..Outcome::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Filter,
    Upstream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Headers,
    Body,
    Sent,
}

/// An answer on its way through the filter's response callbacks.
pub(super) struct Response {
    pub(super) source: Source,
    pub(super) details: String,
    /// Headers with `:status`.
    pub(super) headers: Pairs,
    pub(super) body: Vec<u8>,
    pub(super) stage: Stage,
    pub(super) paused: bool,
}

impl Response {
    pub(super) fn new(reply: Reply, source: Source, head: bool) -> Response {
        let mut headers = with_status(&reply);
        if source == Source::Filter {
            complete_local_headers(&mut headers, &reply.body);
        }
        let body = if head { Vec::new() } else { reply.body };
        Response { source, details: reply.details, headers, body, stage: Stage::Headers, paused: false }
    }

    pub(super) fn passed(&mut self, stage: Stage, flow: Flow) {
        self.paused = flow == Flow::Pause;
        self.stage = if stage == Stage::Headers && !self.body.is_empty() { Stage::Body } else { Stage::Sent };
    }

    pub(super) fn sent(&self) -> bool {
        self.stage == Stage::Sent && !self.paused
    }

    pub(super) fn as_client_sees_it(&self) -> Reply {
        let status = first(&self.headers, ":status").map(String::from_utf8_lossy);
        let headers = self.headers.iter().filter(|(name, _)| !name.starts_with(b":")).cloned().collect();
        Reply {
            status: status.and_then(|status| status.parse().ok()).unwrap_or_default(),
            details: self.details.clone(),
            headers,
            body: self.body.clone(),
        }
    }
}

/// Completes a local reply as Envoy does: a length, and a type if the filter set none.
pub(super) fn complete_local_headers(headers: &mut Pairs, body: &[u8]) {
    headers.retain(|(name, _)| name != b"content-length");
    if body.is_empty() {
        headers.retain(|(name, _)| name != b"content-type");
        return;
    }
    if first(headers, "content-type").is_none() {
        headers.extend(pairs([("content-type", "text/plain")]));
    }
    headers.extend(pairs([("content-length", body.len().to_string())]));
}
