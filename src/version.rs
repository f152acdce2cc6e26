//! Version of this build, and the stamp that carries it in a module file.
//!
//! A module in a registry or on a gateway has lost its file name. The stamp is a custom section, which engines skip and
//! `callbound version MODULE` reads.

/// Version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of the policy language, the value of a policy's `version`.
pub const POLICY_LANGUAGE: u64 = 1;

/// Version of the proxy-wasm ABI through which hosts call the module.
pub const ABI: &str = "0.2.1";

/// Name of the custom section.
pub const SECTION: &str = "callbound";

/// Content of the custom section, a JSON object.
pub const STAMP: &str =
    concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#"","policy_language":1,"abi":"0.2.1"}"#);

#[cfg(target_arch = "wasm32")]
#[expect(
    unsafe_code,
    dead_code,
    reason = "only an attribute chooses a section, and nothing inside the module reads this one"
)]
#[unsafe(link_section = "callbound")]
static STAMPED: [u8; STAMP.len()] = match STAMP.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => [b' '; STAMP.len()],
};

/// Returns the stamp of a module; `None` for a module without one and for another file.
pub fn stamp_of(module: &[u8]) -> Option<&str> {
    let mut rest = module.strip_prefix(b"\0asm\x01\0\0\0")?;
    while let Some((id, after)) = rest.split_first() {
        let (content, after) = sized(after)?;
        rest = after;
        if *id == 0 {
            let (name, content) = sized(content)?;
            if name == SECTION.as_bytes() {
                return std::str::from_utf8(content).ok();
            }
        }
    }
    None
}

/// Splits the bytes after a length (LEB128 of at most 32 bits) into as many and the rest.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= u32::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..)?.split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_holds_the_constants() {
        let stamp: serde_json::Value = serde_json::from_str(STAMP).unwrap_or_default();
        let wanted = serde_json::json!({"version": VERSION, "policy_language": POLICY_LANGUAGE, "abi": ABI});
        assert_eq!(stamp, wanted);
    }

    #[test]
    fn stamp_is_found_after_other_sections_only() {
        let header = b"\0asm\x01\0\0\0".to_vec();
        let section = |name: &str, text: &str| {
            let mut content = vec![u8::try_from(name.len()).unwrap_or_default()];
            content.extend_from_slice(name.as_bytes());
            content.extend_from_slice(text.as_bytes());
            // A length may be written longer than it needs to be.
            let length = u8::try_from(content.len()).unwrap_or_default();
            [&[0, length | 0x80, 0][..], &content].concat()
        };
        let module = [header.clone(), vec![1, 1, 0], section("name", "x"), section(SECTION, STAMP)].concat();
        assert_eq!(stamp_of(&module), Some(STAMP));
        assert_eq!(stamp_of(&module[..module.len() - 1]), None, "cut off");
        assert_eq!(stamp_of(&[header.clone(), section("other", STAMP)].concat()), None);
        assert_eq!(stamp_of(&header), None);
        assert_eq!(stamp_of(&[header, vec![0, 0xff, 0xff, 0xff, 0xff, 0xff]].concat()), None);
        assert_eq!(stamp_of(STAMP.as_bytes()), None);
    }
}
