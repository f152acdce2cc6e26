//! The ABI: each function below is the import of the same name.

use super::*;

/// `NGX_WA_METRICS_DEFAULT_MAX_NAME_LEN`, with the prefix and the filter's name.
const MAX_METRIC_NAME: usize = 256;

/// Changes one header of a map.
fn change(guest: &mut Guest<'_>, map: u32, name: &[u8], change: Change) -> Answer {
    let host = guest.data_mut();
    if host.world.host.has_phases && map == 0 {
        return host.change_nginx_header(name, change);
    }
    let pairs = host.writable_map(map).ok_or(BAD_ARGUMENT)?;
    if !matches!(change, Change::Add(_)) {
        pairs.retain(|(other, _)| other != name);
    }
    if let Change::Add(value) | Change::Replace(value) = change {
        pairs.push((name.to_vec(), value));
    }
    Ok(())
}

/// Returns the refusals for an unknown metric and for a misused one.
fn metric_refusals(guest: &Guest<'_>) -> (Refusal, Refusal) {
    match guest.data().world.host.metrics {
        MetricRules::Strict => (trap("metric not found"), trap("metric misused")),
        _ => (NOT_FOUND, BAD_ARGUMENT),
    }
}

imports! { ENV_FUNCTIONS, link_env, "env";

    fn proxy_log(guest, level, data, size) {
        let level = Level::from_abi(level).ok_or(BAD_ARGUMENT)?;
        let line = read(guest, data, size)?;
        guest.data_mut().log(level, &line);
        Ok(())
    }

    fn proxy_get_log_level(guest, level_out) {
        write_u32(guest, level_out, Level::Trace as u32)
    }

    fn proxy_get_current_time_nanoseconds(guest, time_out) {
        let now = guest.data().world.now_ns;
        write_u64(guest, time_out, now)
    }

    fn proxy_set_tick_period_milliseconds(guest, period) {
        let host = guest.data_mut();
        let context = host.context();
        let root = host.root_of(context);
        if host.world.host.ticks == TickRules::Once {
            let has_one = host.roots.get(&root).is_some_and(|period| *period > 0);
            if context != root || (has_one && period > 0) {
                return Err(trap("tick_period already set, or not in a root context"));
            }
        }
        host.roots.insert(root, period);
        Ok(())
    }

    fn proxy_set_effective_context(guest, context) {
        let host = guest.data_mut();
        if !host.world.host.sets_effective_context {
            return Ok(());
        }
        if !host.exists(context) {
            return Err(BAD_ARGUMENT);
        }
        host.effective = context;
        Ok(())
    }

    /// Contexts are deleted at once, so there is never a pending `on_done` to confirm.
    fn proxy_done(_guest) {
        Err(NOT_FOUND)
    }

    fn proxy_get_status(guest, code_out, data_out, size_out) {
        write_u32(guest, code_out, 0)?;
        give(guest, b"", data_out, size_out)
    }

    // Properties

    fn proxy_get_property(guest, path, path_size, data_out, size_out) {
        let path = read_text(guest, path, path_size)?;
        let value = guest.data_mut().property(&path)?;
        give(guest, &value, data_out, size_out)
    }

    fn proxy_set_property(guest, path, path_size, data, size) {
        let path = read_text(guest, path, path_size)?;
        let value = read(guest, data, size)?;
        guest.data_mut().set_property(path, value)
    }

    // Buffers

    fn proxy_get_buffer_bytes(guest, kind, start, length, data_out, size_out) {
        if guest.data().world.host.has_phases {
            return match guest.data_mut().nginx_buffer(kind, start, length)? {
                Some(bytes) => give(guest, &bytes, data_out, size_out),
                None => Ok(()),
            };
        }
        let buffer = guest.data_mut().buffer(kind).ok_or(NOT_FOUND)?;
        let wanted = buffer.iter().skip(start as usize).take(length as usize);
        let bytes: Vec<u8> = wanted.copied().collect();
        if bytes.is_empty() { Ok(()) } else { give(guest, &bytes, data_out, size_out) }
    }

    fn proxy_get_buffer_status(guest, kind, length_out, flags_out) {
        let length = guest.data_mut().buffer(kind).ok_or(NOT_FOUND)?.len();
        write_u32(guest, length_out, length as u32)?;
        write_u32(guest, flags_out, 0)
    }

    /// Prepends, appends or replaces the whole; nothing in between, as in Envoy.
    fn proxy_set_buffer_bytes(guest, kind, start, length, data, size) {
        let bytes = read(guest, data, size)?;
        let buffer = guest.data_mut().writable_buffer(kind).ok_or(NOT_FOUND)?;
        let (start, length) = (start as usize, length as usize);
        match start {
            0 if length == 0 => drop(buffer.splice(..0, bytes)),
            0 if length >= buffer.len() => *buffer = bytes,
            start if start > 0 && start >= buffer.len() => buffer.extend(bytes),
            _ => return Err(BAD_ARGUMENT),
        }
        Ok(())
    }

    // Header maps

    fn proxy_get_header_map_pairs(guest, map, data_out, size_out) {
        let pairs = guest.data_mut().readable_map(map)?.unwrap_or_default();
        let bytes = if pairs.is_empty() { Vec::new() } else { encode_pairs(&pairs) };
        give(guest, &bytes, data_out, size_out)
    }

    fn proxy_set_header_map_pairs(guest, map, data, size) {
        let pairs = read_pairs(guest, data, size)?;
        *guest.data_mut().writable_map(map).ok_or(BAD_ARGUMENT)? = pairs;
        Ok(())
    }

    fn proxy_get_header_map_size(guest, map, size_out) {
        let pairs = guest.data_mut().readable_map(map)?.ok_or(BAD_ARGUMENT)?;
        let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        write_u32(guest, size_out, size as u32)
    }

    fn proxy_get_header_map_value(guest, map, key, key_size, data_out, size_out) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let pairs = guest.data_mut().readable_map(map)?.ok_or(BAD_ARGUMENT)?;
        let (_, value) = pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)).cloned().ok_or(NOT_FOUND)?;
        give(guest, &value, data_out, size_out)
    }

    fn proxy_add_header_map_value(guest, map, key, key_size, data, size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let value = read(guest, data, size)?;
        change(guest, map, &key, Change::Add(value))
    }

    fn proxy_replace_header_map_value(guest, map, key, key_size, data, size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let value = read(guest, data, size)?;
        change(guest, map, &key, Change::Replace(value))
    }

    fn proxy_remove_header_map_value(guest, map, key, key_size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        change(guest, map, &key, Change::Remove)
    }

    // Streams

    fn proxy_continue_stream(guest, kind) {
        let host = guest.data_mut();
        let context = host.context();
        let deferred = match kind {
            0 => Deferred::Resume(context),
            1 => Deferred::ResumeResponse(context),
            _ => return Err(BAD_ARGUMENT),
        };
        host.deferred.push_back(deferred);
        Ok(())
    }

    fn proxy_close_stream(guest, kind) {
        match guest.data_mut().stream() {
            Some(stream) if kind <= 1 => stream.reset = true,
            None if kind <= 1 => {}
            _ => return Err(BAD_ARGUMENT),
        }
        Ok(())
    }

    fn proxy_send_local_response(
        guest, status, details, details_size, body, body_size, headers, headers_size,
        grpc_status: i32
    ) {
        let details = read(guest, details, details_size)?;
        let details = String::from_utf8_lossy(&details).into_owned();
        let body = read(guest, body, body_size)?;
        let headers = read_pairs(guest, headers, headers_size)?;
        let host = guest.data_mut();
        let mut reply = Reply { status, details, headers, body };
        if host.world.host.has_phases {
            match host.nginx_reply(reply, grpc_status)? {
                Some(checked) => reply = checked,
                None => return Ok(()),
            }
        }
        host.deferred.push_back(Deferred::Reply(host.context(), reply));
        host.stop_iteration = true;
        Ok(())
    }

    // HTTP calls and foreign functions

    fn proxy_http_call(
        guest, cluster, cluster_size, headers, headers_size, body, body_size,
        _trailers, _trailers_size, timeout_ms, token_out
    ) {
        let cluster = read_text(guest, cluster, cluster_size)?;
        let headers = read_pairs(guest, headers, headers_size)?;
        let body = read(guest, body, body_size)?;
        let host = guest.data_mut();
        let rules = host.world.host.calls;
        let has = |name: &str| first(&headers, name).is_some();
        let complete = has(":method") && has(":path") && (has(":authority") || !rules.needs_authority);
        if !complete {
            return Err(if rules.traps { trap("no :method, or no :path") } else { BAD_ARGUMENT });
        }
        if host.world.host.has_phases {
            host.check_nginx_call(&cluster)?;
        } else if !host.world.clusters.contains(&cluster) {
            return Err(BAD_ARGUMENT);
        }
        host.last_call += 1;
        let (token, root) = (host.last_call, host.root_of(host.context()));
        let context = host.context();
        let stream = host.streams.contains_key(&context).then_some(context);
        let call = HttpCall { token, cluster, headers, body, timeout_ms, root, stream };
        host.http_calls.insert(token, call);
        write_u32(guest, token_out, token)
    }

    fn proxy_call_foreign_function(guest, name, name_size, data, size, data_out, size_out) {
        let name = read_text(guest, name, name_size)?;
        let arguments = read(guest, data, size)?;
        let function = guest.data().world.foreign.get(&name).cloned().ok_or(NOT_FOUND)?;
        let result = function(&arguments).map_err(Refusal::Status)?;
        give(guest, &result, data_out, size_out)
    }

    // Shared data

    fn proxy_get_shared_data(guest, key, key_size, data_out, size_out, cas_out) {
        let key = read(guest, key, key_size)?;
        let world = &guest.data().world;
        guest.data().check_zone(&key)?;
        let (value, cas) = world.shared.get(&key, world.host.shared_data).ok_or(NOT_FOUND)?;
        give(guest, &value, data_out, size_out)?;
        write_u32(guest, cas_out, cas)
    }

    fn proxy_set_shared_data(guest, key, key_size, data, size, cas) {
        let key = read(guest, key, key_size)?;
        let value = read(guest, data, size)?;
        let rules = guest.data().world.host.shared_data;
        guest.data().check_zone(&key)?;
        let value = Some(value.as_slice()).filter(|_| rules == SharedDataRules::Process || data != 0);
        let written = guest.data().world.shared.set(&key, value, cas, rules);
        if written { Ok(()) } else { Err(Refusal::Status(status::CAS_MISMATCH)) }
    }

    // Metrics

    fn proxy_define_metric(guest, kind, name, name_size, id_out) {
        let kinds = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram];
        let kind = kinds.into_iter().nth(kind as usize).ok_or(BAD_ARGUMENT)?;
        let name = read_text(guest, name, name_size)?;
        let rules = guest.data().world.host.metrics;
        if rules == MetricRules::Ignored {
            return Ok(());
        }
        let is_strict = rules == MetricRules::Strict;
        if is_strict && name.len() + "callbound".len() + 4 > MAX_METRIC_NAME {
            return Err(trap("name too long"));
        }
        let id = guest.data_mut().metrics.define(kind, name, is_strict);
        write_u32(guest, id_out, id)
    }

    fn proxy_get_metric(guest, id, value_out) {
        let (no_metric, misuse) = metric_refusals(guest);
        let value = match guest.data_mut().metrics.find(id).ok_or(no_metric)? {
            (MetricKind::Histogram, _) => return Err(misuse),
            (_, value) => *value,
        };
        write_u64(guest, value_out, value)
    }

    fn proxy_record_metric(guest, id, recorded: u64) {
        if guest.data().world.host.metrics == MetricRules::Ignored {
            return Ok(());
        }
        let (no_metric, misuse) = metric_refusals(guest);
        let is_strict = guest.data().world.host.metrics == MetricRules::Strict;
        match guest.data_mut().metrics.find(id).ok_or(no_metric)? {
            (MetricKind::Counter, _) if is_strict => return Err(misuse),
            (MetricKind::Counter, value) => *value = value.saturating_add(recorded),
            (_, value) => *value = recorded,
        }
        Ok(())
    }

    /// A counter only grows; an increment of 0 is an error too.
    fn proxy_increment_metric(guest, id, offset: i64) {
        if guest.data().world.host.metrics == MetricRules::Ignored {
            return Ok(());
        }
        let is_strict = guest.data().world.host.metrics == MetricRules::Strict;
        let (no_metric, misuse) = metric_refusals(guest);
        match guest.data_mut().metrics.find(id).ok_or(no_metric)? {
            (MetricKind::Histogram, _) => return Err(misuse),
            (MetricKind::Gauge, _) if is_strict => return Err(misuse),
            (MetricKind::Counter, _) if offset <= 0 => return Err(BAD_ARGUMENT),
            (_, value) => *value = value.saturating_add_signed(offset),
        }
        Ok(())
    }

    // Refused: see the head of this file

    fn proxy_register_shared_queue(_guest, _name, _name_size, _id_out) { Err(UNIMPLEMENTED) }
    fn proxy_resolve_shared_queue(_guest, _a, _b, _c, _d, _e) { Err(UNIMPLEMENTED) }
    fn proxy_dequeue_shared_queue(_guest, _id, _data_out, _size_out) { Err(UNIMPLEMENTED) }
    fn proxy_enqueue_shared_queue(_guest, _id, _data, _size) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_call(_guest, _a, _b, _c, _d, _e, _f, _g, _h, _i, _j, _k, _l) {
        Err(UNIMPLEMENTED)
    }
    fn proxy_grpc_stream(_guest, _a, _b, _c, _d, _e, _f, _g, _h, _i) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_send(_guest, _token, _data, _size, _end) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_cancel(_guest, _token) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_close(_guest, _token) { Err(UNIMPLEMENTED) }
}
