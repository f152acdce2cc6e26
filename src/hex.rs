//! Bytes as lower-case hex: digests in policies, ids in tokens, names in Redis.

/// Writes two lower-case digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
