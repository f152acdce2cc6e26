//! The VM: contexts, frames, callbacks.

use super::*;

/// One instance of the module: one worker of the gateway.
pub struct Vm {
    pub(super) module: Module,
    pub(super) store: Store<Host>,
    pub(super) instance: Instance,
    pub(super) root: u32,
    pub(super) dead: Option<String>,
    /// The last trap, where it did not end the VM.
    pub(super) crashed: Option<String>,
    /// Number of the instance, from 0, and whether the next call needs a new one.
    pub(super) generation: u32,
    pub(super) is_broken: bool,
    pub(super) configuration: Vec<u8>,
}

impl Vm {
    /// Returns the world around this VM.
    pub fn world(&mut self) -> &mut World {
        &mut self.store.data_mut().world
    }

    pub fn set_now(&mut self, now_ns: u64) {
        self.world().now_ns = now_ns;
    }

    /// Lets a host function fail; see [`World::fail`].
    pub fn fail(&mut self, function: &str, status: i32) -> Result<(), String> {
        self.world().fail(function, status)
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.world().heal();
    }

    pub fn logs(&self) -> Vec<(Level, String)> {
        self.store.data().all_logs()
    }

    pub fn clear_logs(&mut self) {
        self.store.data_mut().logs.clear();
    }

    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.store.data().metrics.of_kind(MetricKind::Counter)
    }

    pub fn gauges(&self) -> BTreeMap<String, u64> {
        self.store.data().metrics.of_kind(MetricKind::Gauge)
    }

    /// Returns the number of calls of each host function since the start or the last reset.
    pub fn host_calls(&self) -> BTreeMap<&'static str, u64> {
        self.store.data().calls.clone()
    }

    pub fn reset_host_calls(&mut self) {
        self.store.data_mut().calls.clear();
    }

    /// Returns the size of the VM's linear memory, which never shrinks.
    pub fn memory_bytes(&mut self) -> usize {
        let memory = self.instance.get_memory(&mut self.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Returns the message of the last trap.
    pub fn trapped(&self) -> Option<&str> {
        self.dead.as_deref().or(self.crashed.as_deref())
    }

    /// Returns the tick period of the present root context, in milliseconds; 0: none.
    pub fn tick_period(&self) -> u32 {
        self.store.data().roots.get(&self.root).copied().unwrap_or_default()
    }

    /// Ticks every live root context that asked for ticks.
    pub fn tick(&mut self) {
        let roots = &self.store.data().roots;
        let due: Vec<u32> = roots.iter().filter(|(_, period)| **period > 0).map(|(id, _)| *id).collect();
        for root in due {
            self.call::<_, ()>(root, "proxy_on_tick", root);
            self.settle();
        }
    }

    /// Delivers a new configuration as Envoy does. False: it was refused and the old one stays.
    pub fn reconfigure(&mut self, config: &[u8]) -> bool {
        let canary = self.module.start_in(self.store.data().world.clone(), config);
        if let Err(refused) = canary {
            let lines = refused.logs.into_iter().map(|(level, line)| Line { context: 0, level, line });
            self.store.data_mut().logs.extend(lines);
            return false;
        }
        let accepted = self.configure_new_root(config);
        if !accepted && self.dead.is_none() {
            self.dead = Some("the configuration was refused by a running VM".to_owned());
        }
        self.retire_roots();
        accepted
    }

    /// Starts the worker that a reload of the gateway makes, with this configuration.
    pub fn reload(&mut self, config: &[u8]) -> Result<Vm, StartError> {
        let mut world = self.world().clone();
        if world.host.shared_data == SharedDataRules::Zones {
            // Zones are `noreuse` (ngx_wa_shm.c): nginx makes each one anew. Seen with 9136e463 in nginx 1.25.3.
            world.shared = SharedData::default();
        }
        self.module.start_in(world, config)
    }

    /// Plays a whole stream. An upstream that received all of it answers `request.answer`.
    pub fn exchange(&mut self, request: &Request) -> Outcome {
        if let Some(outcome) = nginx::refusal(request, self.world().host) {
            return outcome;
        }
        let frames = request.chunks.len() + usize::from(request.trailers.is_some());
        let stream = self.begin(request);
        for (index, chunk) in request.chunks.iter().enumerate() {
            self.body(stream, chunk, index + 1 == frames);
        }
        if let Some(trailers) = &request.trailers {
            self.trailers(stream, trailers);
        }
        self.respond(stream, &request.answer);
        self.finish(stream)
    }

    /// Begins a stream: its context and its headers.
    pub fn open(&mut self, headers: &Pairs, end_of_stream: bool) -> Stream {
        self.open_with(headers, end_of_stream, true)
    }

    /// As [`Vm::open`], with or without `allow_on_headers_stop_iteration`.
    pub fn open_with(&mut self, headers: &Pairs, end_of_stream: bool, stop_iteration_flag: bool) -> Stream {
        let request = Request { headers: headers.clone(), stop_iteration_flag, ..Request::new("", "") };
        self.open_request(&request, end_of_stream)
    }

    /// The headers of a request, whatever follows.
    pub fn begin(&mut self, request: &Request) -> Stream {
        let is_empty = request.chunks.is_empty() && request.trailers.is_none();
        // On hosts that read the whole body first, a handshake is a request without one.
        let ends = is_empty && (!request.unfinished || self.world().host.has_phases);
        self.open_request(request, ends)
    }

    fn open_request(&mut self, request: &Request, end_of_stream: bool) -> Stream {
        self.replace_instance();
        let (root, generation) = (self.root, self.generation);
        let host = self.store.data_mut();
        let id = host.new_id();
        let stream = StreamState::new(root, generation, request, &host.world);
        host.streams.insert(id, stream);
        self.call::<_, ()>(id, "proxy_on_context_create", (id, root));
        self.feed(id, Frame::Headers { end: end_of_stream });
        Stream(id)
    }

    /// One more chunk of the request body.
    pub fn body(&mut self, stream: Stream, chunk: &[u8], end_of_stream: bool) {
        self.feed(stream.0, Frame::Body { bytes: chunk.to_vec(), end: end_of_stream });
    }

    /// The trailers, which end the request.
    pub fn trailers(&mut self, stream: Stream, trailers: &Pairs) {
        self.feed(stream.0, Frame::Trailers(pairs(trailers.clone())));
    }

    /// Lets the upstream answer, if it has the whole request and there is no answer yet.
    pub fn respond(&mut self, stream: Stream, answer: &Reply) {
        let Some(state) = self.store.data().streams.get(&stream.0) else {
            return;
        };
        if state.upstream.as_ref().is_some_and(|upstream| upstream.complete) && !state.over() {
            self.begin_response(stream.0, answer.clone(), Source::Upstream);
        }
    }

    /// Returns the present result of the stream, without ending it.
    pub fn look(&self, stream: Stream) -> Outcome {
        let host = self.store.data();
        let mut outcome = host.streams.get(&stream.0).map(StreamState::outcome).unwrap_or_default();
        outcome.held &= self.dead.is_none();
        outcome.trapped = outcome.trapped.or_else(|| self.dead.clone());
        outcome.logs = host.logs_of(|line| line.context == stream.0);
        outcome
    }

    /// Ends the stream, whatever its state: the client has its answer, or is gone.
    pub fn finish(&mut self, stream: Stream) -> Outcome {
        let Stream(id) = stream;
        if let Some(state) = self.store.data_mut().streams.get_mut(&id) {
            state.logging = true;
        }
        for name in self.last_calls(id) {
            match *name {
                "proxy_on_done" => _ = self.call::<_, u32>(id, name, id),
                name => _ = self.call::<_, ()>(id, name, id),
            }
        }
        let outcome = self.look(stream);
        let host = self.store.data_mut();
        host.streams.remove(&id);
        self.settle();
        self.retire_roots();
        outcome
    }

    /// HTTP calls that wait for an answer.
    pub fn http_calls(&self) -> Vec<HttpCall> {
        self.store.data().http_calls.values().cloned().collect()
    }

    /// Answers an HTTP call; `None`: the connection failed. A call that is too long for the host gets no answer.
    pub fn answer_call(&mut self, token: u32, answer: Option<&Reply>) {
        let most = self.world().host.calls.most_bytes;
        if self.store.data().http_calls.get(&token).is_some_and(|call| call.bytes() > most) {
            return;
        }
        let Some(call) = self.store.data_mut().http_calls.remove(&token) else {
            return;
        };
        let (headers, body) =
            answer.map_or((0, 0), |reply| (reply.headers.len() as u32 + 1, reply.body.len() as u32));
        self.store.data_mut().call_response = answer.map(|reply| (with_status(reply), reply.body.clone()));
        let has_phases = self.world().host.has_phases;
        // On hosts with phases a call acts on its request whatever context it names.
        let context = call.stream.filter(|_| has_phases).unwrap_or(call.root);
        self.call::<_, ()>(context, "proxy_on_http_call_response", (call.root, token, headers, body, 0));
        self.store.data_mut().call_response = None;
        self.settle();
        if has_phases {
            self.go_on_after_call(context);
        }
    }

    /// Loses a call on a host that then ends the request itself, without a callback (Kong up to 3.8).
    pub fn lose_call(&mut self, token: u32) {
        let call = self.store.data_mut().http_calls.remove(&token);
        let stream = call.and_then(|call| self.store.data_mut().streams.get_mut(&call.stream?));
        if let Some(stream) = stream {
            stream.failed = Some(500);
        }
    }

    fn last_calls(&self, id: u32) -> &'static [&'static str] {
        let host = self.store.data();
        let has_trapped = host.streams.get(&id).is_some_and(|stream| stream.trapped.is_some());
        match host.world.host.crash {
            // ngx_proxy_wasm_run_step: once a filter's ecode is set, all later steps are skipped.
            Crash::NewInstance(_) if has_trapped => &[],
            _ => host.world.host.last_calls,
        }
    }

    pub(super) fn boot(&mut self, config: &[u8]) -> bool {
        self.configuration = config.to_vec();
        self.call::<_, ()>(0, "_initialize", ());
        let root = self.create_root();
        let starts = self.world().host.starts_vm;
        let started = !starts || self.call::<_, u32>(root, "proxy_on_vm_start", (root, 0)).unwrap_or(1) != 0;
        started && self.configure(root, config)
    }

    /// Replaces an instance that trapped, on hosts that do so: the root is configured again without `on_vm_start`.
    /// False: there is none.
    fn replace_instance(&mut self) -> bool {
        if !self.is_broken {
            return true;
        }
        let Ok(instance) = self.module.linked.instantiate(&mut self.store) else { return false };
        (self.instance, self.is_broken) = (instance, false);
        self.generation += 1;
        let (root, config) = (self.root, std::mem::take(&mut self.configuration));
        self.store.data_mut().roots.insert(root, 0);
        self.call::<_, ()>(0, "_initialize", ());
        self.call::<_, ()>(root, "proxy_on_context_create", (root, 0));
        let accepted = self.configure(root, &config);
        self.configuration = config;
        self.is_broken |= !accepted;
        accepted
    }

    /// Prepares a call: an instance, and in it the request's context, blank if the instance is new.
    fn prepare(&mut self, context: u32) -> bool {
        if self.is_broken && !self.replace_instance() {
            self.fail_stream(context, "there is no instance");
            return false;
        }
        let generation = self.generation;
        let stream = self.store.data_mut().streams.get_mut(&context);
        let Some(stream) = stream.filter(|stream| stream.generation != generation) else { return true };
        stream.generation = generation;
        let root = stream.root;
        self.call::<_, ()>(context, "proxy_on_context_create", (context, root));
        true
    }

    /// Applies a trap to the request it happened in and to the VM.
    fn crash(&mut self, context: u32, reason: String) {
        match self.world().host.crash {
            Crash::Dead => self.dead = Some(reason),
            crash => {
                self.is_broken |= matches!(crash, Crash::NewInstance(_));
                self.fail_stream(context, &reason);
                self.crashed = Some(reason);
            }
        }
    }

    pub(super) fn fail_stream(&mut self, context: u32, reason: &str) {
        let host = self.store.data_mut();
        let status = match host.world.host.crash {
            Crash::Dead => None,
            Crash::NewInstance(status) | Crash::Kept(status) => Some(status),
        };
        host.deferred.retain(|deferred| !deferred.is_of(context));
        if let Some(stream) = host.streams.get_mut(&context) {
            stream.trapped = Some(reason.to_owned());
            stream.failed = status;
        }
    }

    pub(super) fn configure_new_root(&mut self, config: &[u8]) -> bool {
        let root = self.create_root();
        self.configure(root, config)
    }

    pub(super) fn create_root(&mut self) -> u32 {
        let host = self.store.data_mut();
        let root = host.new_id();
        host.roots.insert(root, 0);
        self.call::<_, ()>(root, "proxy_on_context_create", (root, 0));
        root
    }

    pub(super) fn configure(&mut self, root: u32, config: &[u8]) -> bool {
        self.store.data_mut().configuration = Some(config.to_vec());
        let crashed = self.crashed.take();
        let size = config.len() as u32;
        let accepted = self.call::<_, u32>(root, "proxy_on_configure", (root, size)).unwrap_or(1) != 0;
        self.store.data_mut().configuration = None;
        self.settle();
        let accepted = accepted && self.dead.is_none() && self.crashed.is_none();
        self.crashed = self.crashed.take().or(crashed);
        if accepted {
            self.root = root;
        }
        accepted
    }

    pub(super) fn refusal(self) -> StartError {
        let trap = self.dead.clone().or(self.crashed.clone());
        let reason = trap.unwrap_or_else(|| "the module refused its configuration".to_owned());
        StartError { reason, logs: self.store.data().all_logs() }
    }

    /// Deletes root contexts that were replaced and have no stream left.
    pub(super) fn retire_roots(&mut self) {
        let host = self.store.data();
        let used: BTreeSet<u32> = host.streams.values().map(|stream| stream.root).collect();
        let idle = |id: &u32| *id != self.root && !used.contains(id);
        let retired: Vec<u32> = host.roots.keys().copied().filter(idle).collect();
        for root in retired {
            self.call::<_, u32>(root, "proxy_on_done", root);
            self.call::<_, ()>(root, "proxy_on_delete", root);
            let host = self.store.data_mut();
            host.roots.remove(&root);
            // Envoy cancels the calls of a context that goes.
            host.http_calls.retain(|_, call| call.root != root);
        }
    }

    pub(super) fn feed(&mut self, id: u32, frame: Frame) {
        if let Some(stream) = self.store.data_mut().streams.get_mut(&id) {
            stream.backlog.push_back(frame);
            match self.world().host.has_phases {
                true => self.advance(id),
                false => self.pump(id),
            }
        }
    }

    /// Shows waiting frames to the filter for as long as it takes them.
    pub(super) fn pump(&mut self, id: u32) {
        while let Some(frame) = self.next_frame(id) {
            let too_large = self.receive(id, &frame);
            if !too_large {
                let flow = self.show(id, &frame);
                self.apply(id, &frame, flow);
            }
            self.settle();
        }
    }

    pub(super) fn next_frame(&mut self, id: u32) -> Option<Frame> {
        let stream = self.store.data_mut().streams.get_mut(&id)?;
        let waits = self.dead.is_some() || stream.stopped || stream.over();
        if waits { None } else { stream.backlog.pop_front() }
    }

    /// Takes a frame into the stream's buffers. True: the host answered 413 itself.
    pub(super) fn receive(&mut self, id: u32, frame: &Frame) -> bool {
        let host = self.store.data_mut();
        let Some(stream) = host.streams.get_mut(&id) else {
            return false;
        };
        stream.ended |= frame.ends();
        match frame {
            Frame::Headers { .. } => false,
            Frame::Trailers(trailers) => {
                stream.trailers = Some(trailers.clone());
                false
            }
            Frame::Body { bytes, .. } => {
                let is_kept = !stream.body.is_empty();
                stream.body.extend_from_slice(bytes);
                is_kept && host.refuse_large_body(id)
            }
        }
    }

    pub(super) fn show(&mut self, id: u32, frame: &Frame) -> Flow {
        let Some(stream) = self.store.data().streams.get(&id) else {
            return Flow::Pause;
        };
        let (headers, body) = (stream.headers.len() as u32, stream.body.len() as u32);
        match frame {
            Frame::Headers { end } => {
                self.ask(id, "proxy_on_request_headers", (id, headers, u32::from(*end)))
            }
            Frame::Body { end, .. } => self.ask(id, "proxy_on_request_body", (id, body, u32::from(*end))),
            Frame::Trailers(trailers) => {
                self.ask(id, "proxy_on_request_trailers", (id, trailers.len() as u32))
            }
        }
    }

    pub(super) fn apply(&mut self, id: u32, frame: &Frame, flow: Flow) {
        let host = self.store.data_mut();
        let Some(stream) = host.streams.get_mut(&id) else {
            return;
        };
        match (flow, frame) {
            (Flow::Continue, _) if !stream.over() => stream.release(),
            (Flow::Pause, Frame::Headers { .. }) => stream.stopped = !stream.stop_iteration_flag,
            (Flow::Pause, Frame::Body { .. }) => {
                host.refuse_large_body(id);
            }
            _ => {}
        }
    }

    /// Runs the effects that host calls deferred.
    pub(super) fn settle(&mut self) {
        while let Some(deferred) = self.store.data_mut().deferred.pop_front() {
            match deferred {
                Deferred::Resume(id) if self.world().host.has_phases => self.wake(id),
                Deferred::Resume(id) => self.resume_request(id),
                Deferred::ResumeResponse(id) => self.resume_response(id),
                Deferred::Reply(id, reply) => self.begin_response(id, reply, Source::Filter),
            }
        }
    }

    pub(super) fn resume_request(&mut self, id: u32) {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else {
            return;
        };
        if self.dead.is_none() && !stream.over() {
            stream.stopped = false;
            stream.release();
            self.pump(id);
        }
    }

    pub(super) fn resume_response(&mut self, id: u32) {
        let stream = self.store.data_mut().streams.get_mut(&id);
        if let Some(response) = stream.and_then(|stream| stream.response.as_mut()) {
            response.paused = false;
            self.drive_response(id);
        }
    }

    pub(super) fn begin_response(&mut self, id: u32, reply: Reply, source: Source) {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else {
            return;
        };
        let answered = stream.response.as_ref().is_some_and(|response| response.source == Source::Filter);
        if self.dead.is_some() || stream.reset || stream.logging || stream.failed.is_some() || answered {
            return;
        }
        if stream.response.as_ref().is_some_and(Response::sent) {
            stream.reset = true; // Too late to replace the answer: Envoy cuts the stream.
            return;
        }
        let replaces = stream.response.is_some();
        let is_head = stream.is_head();
        let mut response = Response::new(reply, source, is_head);
        if replaces {
            response.stage = Stage::Sent;
        }
        stream.response = Some(response);
        self.drive_response(id);
    }

    /// Runs the response callbacks until the answer is sent or the filter holds it.
    pub(super) fn drive_response(&mut self, id: u32) {
        while let Some(stage) = self.next_stage(id) {
            let flow = self.show_response(id, stage);
            if let Some(response) = self.store.data_mut().response_mut(id) {
                response.passed(stage, flow);
            }
            self.settle();
        }
    }

    pub(super) fn next_stage(&mut self, id: u32) -> Option<Stage> {
        let alive = self.dead.is_none();
        let stream = self.store.data().streams.get(&id).filter(|stream| alive && !stream.reset)?;
        let response = stream.response.as_ref()?;
        let blocked = response.paused && !stream.stop_iteration_flag;
        (response.stage != Stage::Sent && !blocked).then_some(response.stage)
    }

    pub(super) fn show_response(&mut self, id: u32, stage: Stage) -> Flow {
        let Some(response) = self.store.data_mut().response_mut(id) else {
            return Flow::Pause;
        };
        let (headers, body) = (response.headers.len() as u32, response.body.len() as u32);
        match stage {
            Stage::Headers => self.ask(id, "proxy_on_response_headers", (id, headers, u32::from(body == 0))),
            Stage::Body if !self.world().host.shows_response_body => Flow::Continue,
            Stage::Body => self.ask(id, "proxy_on_response_body", (id, body, 1)),
            Stage::Sent => Flow::Continue,
        }
    }

    /// Runs a callback that returns an action. A local reply made meanwhile overrides the action.
    pub(super) fn ask<P: WasmParams>(&mut self, context: u32, name: &str, params: P) -> Flow {
        let action = self.call::<P, u32>(context, name, params).unwrap_or(0);
        let stopped = self.dead.is_some() || self.store.data().stop_iteration;
        if stopped || action != 0 { Flow::Pause } else { Flow::Continue }
    }

    /// Calls an export in a context. `None`: the VM is dead, or there is no such export.
    pub(super) fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        context: u32,
        name: &str,
        params: P,
    ) -> Option<R> {
        self.store.data_mut().stop_iteration = false;
        if self.dead.is_some() || !self.prepare(context) {
            return None;
        }
        let function = self.instance.get_func(&mut self.store, name)?;
        let host = self.store.data_mut();
        (host.current, host.effective) = (context, 0);
        host.callback = Callback::named(name);
        let result =
            function.typed::<P, R>(&self.store).and_then(|export| export.call(&mut self.store, params));
        self.store.data_mut().effective = 0;
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.crash(context, format!("{name}: {}", text(error)));
                None
            }
        }
    }
}

pub(super) fn text(error: wasmtime::Error) -> String {
    format!("{error:?}")
}

pub(super) fn with_status(reply: &Reply) -> Pairs {
    let mut headers = pairs([(":status", reply.status.to_string())]);
    headers.extend(reply.headers.iter().cloned());
    headers
}
