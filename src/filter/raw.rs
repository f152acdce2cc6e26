//! Host calls of this adapter, with their raw status.
//!
//! The wrappers of the SDK panic on an unexpected status and on header values that are not UTF-8. Here every status is a
//! value and every header is bytes.
#![expect(unsafe_code, reason = "host functions are foreign; each block states why it is sound")]

use std::ptr;

/// Status of a failed host call (proxy-wasm ABI 0.2.1, `proxy_status_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostError(pub(super) u32);

/// Status for a missing function, value or property.
pub(super) const NOT_FOUND: HostError = HostError(1);

/// Status of a write that lost to another writer.
pub(super) const CAS_MISMATCH: HostError = HostError(8);

/// Error of this adapter for a call that succeeded with an unusable result.
pub(super) const UNUSABLE: HostError = HostError(0);

pub(super) type HostResult<T> = Result<T, HostError>;

/// Header maps (`proxy_map_type_t`).
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum MapType {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    CallResponseHeaders = 6,
}

/// Byte buffers (`proxy_buffer_type_t`).
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum BufferType {
    RequestBody = 0,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// Log levels (`proxy_log_level_t`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        kind: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, size: usize, cas: u32)
    -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
}

fn check(status: u32) -> HostResult<()> {
    if status == 0 { Ok(()) } else { Err(HostError(status)) }
}

/// Runs a call that returns a buffer and takes ownership of it; the call must write the pointer and size it is given.
fn read(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> HostResult<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    check(call(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host allocated `size` bytes through the SDK's `proxy_on_memory_allocate`, which leaks a `Vec` of that
    // capacity, and passed the pointer to this call alone.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Writes one line to the host's log.
pub(super) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `message.len()` bytes and keeps nothing.
    let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Returns Unix time in nanoseconds, by WASI's clock because some hosts lack the one of the ABI.
pub(super) fn now_nanoseconds() -> HostResult<u64> {
    let mut time = 0;
    // SAFETY: the host writes one u64; 0 is the wall clock.
    check(unsafe { clock_time_get(0, 0, &raw mut time) })?;
    Ok(time)
}

/// Returns Unix time in seconds; `None` when the host's clock fails.
pub(super) fn now_seconds() -> Option<u64> {
    now_nanoseconds().ok().map(|nanoseconds| nanoseconds / 1_000_000_000)
}

/// Aborts the callback. A host that resumes requests by itself treats only that as an error.
pub(super) fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

/// Requests `on_tick` at an interval.
pub(super) fn set_tick_period(milliseconds: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Reads up to `max` bytes from the beginning of a buffer.
pub(super) fn buffer(kind: BufferType, max: usize) -> HostResult<Vec<u8>> {
    // SAFETY: as `read` requires.
    read(|data, size| unsafe { proxy_get_buffer_bytes(kind as u32, 0, max, data, size) })
}

/// Reads all pairs of a map in the form of the ABI.
pub(super) fn pairs(kind: MapType) -> HostResult<Pairs> {
    // SAFETY: as `read` requires.
    read(|data, size| unsafe { proxy_get_header_map_pairs(kind as u32, data, size) }).map(Pairs)
}

/// Returns the HTTP status of the answer to a callout; 0 when there is no answer.
pub(super) fn callout_status() -> u16 {
    let Ok(pairs) = pairs(MapType::CallResponseHeaders) else { return 0 };
    let headers = pairs.list().unwrap_or_default();
    let status = headers.iter().find_map(|(name, value)| (*name == b":status").then_some(*value));
    status.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
}

/// Sets a header to exactly one value.
pub(super) fn replace(kind: MapType, name: &str, value: &str) -> HostResult<()> {
    // SAFETY: the host reads the two slices and keeps nothing.
    check(unsafe {
        proxy_replace_header_map_value(kind as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Removes every occurrence of a header.
pub(super) fn remove(kind: MapType, name: &str) -> HostResult<()> {
    // SAFETY: as in `replace`.
    check(unsafe { proxy_remove_header_map_value(kind as u32, name.as_ptr(), name.len()) })
}

/// Reads a property; zero bytes separate the parts of its path.
pub(super) fn property(path: &str) -> HostResult<Vec<u8>> {
    // SAFETY: the host reads the path; otherwise as `read` requires.
    read(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property with a one-part path; on Envoy it is the filter state `wasm.<name>`.
pub(super) fn set_property(name: &str, value: &[u8]) -> HostResult<()> {
    // SAFETY: as in `replace`.
    check(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Reads a value that all workers share, and its version.
pub(super) fn shared_data(name: &str) -> HostResult<(Vec<u8>, u32)> {
    let mut cas = 0;
    // SAFETY: the host reads the name and writes one u32; otherwise as `read` requires.
    let value = read(|data, size| unsafe {
        proxy_get_shared_data(name.as_ptr(), name.len(), data, size, &raw mut cas)
    })?;
    Ok((value, cas))
}

/// Writes a value that all workers share if it still has this version.
pub(super) fn set_shared_data(name: &str, value: &[u8], cas: u32) -> HostResult<()> {
    // SAFETY: as in `replace`.
    check(unsafe { proxy_set_shared_data(name.as_ptr(), name.len(), value.as_ptr(), value.len(), cas) })
}

/// Resumes a held request.
pub(super) fn resume_request() -> HostResult<()> {
    // SAFETY: no memory is shared; 0 is the request's direction.
    check(unsafe { proxy_continue_stream(0) })
}

/// Defines a counter metric and returns its id.
pub(super) fn define_counter(name: &str) -> HostResult<u32> {
    let mut id = 0;
    // SAFETY: the host reads the name and writes one u32.
    check(unsafe { proxy_define_metric(0, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Increments a counter by one.
pub(super) fn increment(id: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_increment_metric(id, 1) })
}

/// Calls a function that only some hosts have.
pub(super) fn call_foreign(name: &str, arguments: &[u8]) -> HostResult<Vec<u8>> {
    let (function, bytes) = (name.as_ptr(), arguments.as_ptr());
    // SAFETY: the host reads the two slices; otherwise as `read` requires.
    read(|data, size| unsafe {
        proxy_call_foreign_function(function, name.len(), bytes, arguments.len(), data, size)
    })
}

/// Selects the context that the next host calls act on.
pub(super) fn set_effective_context(context: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_set_effective_context(context) })
}

/// Sends a reply to the request from here.
pub(super) fn send_local_response(
    status: u16,
    details: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> HostResult<()> {
    let headers = serialize(headers);
    // SAFETY: the host reads the four slices and keeps nothing.
    check(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Writes pairs in the form of the ABI: count, sizes, then names and values, each followed by a zero byte.
fn serialize(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in pairs {
        bytes.extend_from_slice(&size(name));
        bytes.extend_from_slice(&size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Pairs of a map, in the single allocation made by the host.
pub(super) struct Pairs(Vec<u8>);

impl Pairs {
    /// Lower-cases all names in place.
    pub(super) fn lower_names(&mut self) {
        let Some(list) = self.list() else { return };
        let begin = self.0.as_ptr().addr();
        let at = |name: &[u8]| name.as_ptr().addr().checked_sub(begin).map(|start| start..start + name.len());
        let names: Vec<_> = list.iter().filter_map(|(name, _)| at(name)).collect();
        for name in names {
            self.0.get_mut(name).unwrap_or_default().make_ascii_lowercase();
        }
    }

    /// Returns the number of pairs that the map states.
    pub(super) fn count(&self) -> usize {
        let count = self.0.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    /// Returns the pairs; `None` when the bytes are not in the form of the ABI. Hosts give no bytes for an empty map.
    pub(super) fn list(&self) -> Option<Vec<(&[u8], &[u8])>> {
        if self.0.is_empty() {
            return Some(Vec::new());
        }
        let word = |at: usize| {
            let bytes = self.0.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let count = word(0)?;
        let mut at = count.checked_mul(8)?.checked_add(4)?;
        if at > self.0.len() {
            return None;
        }
        let mut list = Vec::with_capacity(count);
        for index in 0..count {
            let mut next = |size: usize| {
                let text = self.0.get(at..at.checked_add(size)?)?;
                at = at.checked_add(size)?.checked_add(1)?;
                Some(text)
            };
            let name = next(word(4 + index * 8)?)?;
            let value = next(word(8 + index * 8)?)?;
            list.push((name, value));
        }
        Some(list)
    }
}
