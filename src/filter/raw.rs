//! The host calls this filter makes, by their raw status.
//!
//! The SDK's own wrappers panic on a status they do not expect and on header values that are not UTF-8; here every
//! status is a value and every header is bytes. Refuses to know what the calls are for.
#![expect(unsafe_code, reason = "the host's functions are foreign; each block says why it is sound")]

use std::ptr;

/// A host call that did not succeed, by its status (proxy-wasm ABI 0.2.1, `proxy_status_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostError(pub(super) u32);

/// What a host says of a function it does not have.
pub(super) const NOT_FOUND: HostError = HostError(1);

/// What a host says when somebody else wrote in between.
pub(super) const CAS_MISMATCH: HostError = HostError(8);

/// What a call returns.
pub(super) type HostResult<T> = Result<T, HostError>;

/// `proxy_map_type_t`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum MapType {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    CallResponseHeaders = 6,
}

/// `proxy_buffer_type_t`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum BufferType {
    RequestBody = 0,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// `proxy_log_level_t`.
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

/// Takes over memory the host allocated through the SDK's `proxy_on_memory_allocate`.
fn take(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the SDK allocated exactly `size` bytes as a `Vec` and forgot it; the host gave the pointer to us alone.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// Writes one line to the host's log.
pub(super) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `message.len()` bytes and keeps nothing.
    let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Unix time in nanoseconds. WASI's clock: the ABI's own is missing on some hosts.
pub(super) fn now_nanoseconds() -> HostResult<u64> {
    let mut time = 0;
    // SAFETY: the host writes one u64; 0 is the wall clock.
    check(unsafe { clock_time_get(0, 0, &raw mut time) })?;
    Ok(time)
}

/// Ends this call without returning from it: what a host that goes on by itself takes for an error, and nothing else.
pub(super) fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

/// Asks for `on_tick` every so many milliseconds.
pub(super) fn set_tick_period(milliseconds: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Reads up to `max` bytes from the beginning of a buffer.
pub(super) fn buffer(kind: BufferType, max: usize) -> HostResult<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the host writes one pointer and one size, of memory it allocated here.
    check(unsafe { proxy_get_buffer_bytes(kind as u32, 0, max, &raw mut data, &raw mut size) })?;
    Ok(take(data, size))
}

/// Reads all pairs of a map in the ABI's serialisation; see [`Pairs`].
pub(super) fn pairs(kind: MapType) -> HostResult<Pairs> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: as in `buffer`.
    check(unsafe { proxy_get_header_map_pairs(kind as u32, &raw mut data, &raw mut size) })?;
    Ok(Pairs(take(data, size)))
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

/// Reads a property; the parts of its path are separated by zero bytes.
pub(super) fn property(path: &str) -> HostResult<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the host reads the path, and writes one pointer and one size of memory it allocated here.
    check(unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) })?;
    Ok(take(data, size))
}

/// Sets a one-part property; on Envoy filter state `wasm.<name>`.
pub(super) fn set_property(name: &str, value: &[u8]) -> HostResult<()> {
    // SAFETY: as in `replace`.
    check(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Reads a value that all workers share, and the number of its version.
pub(super) fn shared_data(name: &str) -> HostResult<(Vec<u8>, u32)> {
    let (mut data, mut size, mut cas) = (ptr::null_mut(), 0, 0);
    // SAFETY: the host reads the name, and writes one pointer and one size of memory it allocated here, and one u32.
    check(unsafe {
        proxy_get_shared_data(name.as_ptr(), name.len(), &raw mut data, &raw mut size, &raw mut cas)
    })?;
    Ok((take(data, size), cas))
}

/// Writes a value that all workers share over the version with this number.
pub(super) fn set_shared_data(name: &str, value: &[u8], cas: u32) -> HostResult<()> {
    // SAFETY: as in `replace`.
    check(unsafe { proxy_set_shared_data(name.as_ptr(), name.len(), value.as_ptr(), value.len(), cas) })
}

/// Lets a held request go on.
pub(super) fn resume_request() -> HostResult<()> {
    // SAFETY: no memory is shared; 0 is the request's direction.
    check(unsafe { proxy_continue_stream(0) })
}

/// Defines a counter and returns its id.
pub(super) fn define_counter(name: &str) -> HostResult<u32> {
    let mut id = 0;
    // SAFETY: the host reads the name and writes one u32.
    check(unsafe { proxy_define_metric(0, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds one to a counter.
pub(super) fn increment(id: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_increment_metric(id, 1) })
}

/// Calls a function only some hosts have.
pub(super) fn call_foreign(name: &str, arguments: &[u8]) -> HostResult<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the host reads the two slices, and writes one pointer and one size of memory it allocated here.
    check(unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            &raw mut data,
            &raw mut size,
        )
    })?;
    Ok(take(data, size))
}

/// Makes the calls that follow act on another context.
pub(super) fn set_effective_context(context: u32) -> HostResult<()> {
    // SAFETY: no memory is shared.
    check(unsafe { proxy_set_effective_context(context) })
}

/// Answers the request here.
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

/// Writes pairs as the ABI wants them: count, sizes, then names and values, each with a closing zero.
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

/// All pairs of a map, still in the one allocation the host made.
pub(super) struct Pairs(Vec<u8>);

impl Pairs {
    /// Writes all names in lower case.
    pub(super) fn lower_names(&mut self) {
        let Some(list) = self.list() else { return };
        let begin = self.0.as_ptr().addr();
        let at = |name: &[u8]| name.as_ptr().addr().checked_sub(begin).map(|start| start..start + name.len());
        let names: Vec<_> = list.iter().filter_map(|(name, _)| at(name)).collect();
        for name in names {
            self.0.get_mut(name).unwrap_or_default().make_ascii_lowercase();
        }
    }

    /// Lists the pairs; `None` when the bytes are not what the ABI says.
    pub(super) fn list(&self) -> Option<Vec<(&[u8], &[u8])>> {
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
