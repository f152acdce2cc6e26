//! API keys and secrets: `gen-key`, `gen-secret`, `hash-key`.

use std::io::Read as _;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use callbound::credential::digest;
use callbound::hex::hex;
use clap::Args;

use crate::output::{note, print};

/// Arguments of `callbound gen-key`.
#[derive(Args)]
pub struct GenKey {
    /// Prefix of the key, as in the policy's `credentials.api_keys[].prefix`; "" for none
    prefix: String,
    /// Number of random lower-case hex characters after the prefix
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// The key's id in the policy
    #[arg(long, default_value = "backend")]
    id: String,
}

/// New API key with its digest.
pub struct NewKey {
    /// Whole text of the key, shown only once.
    pub text: String,
    /// SHA-256 of the text in lower-case hex, for the policy.
    pub sha256: String,
}

/// Makes a key of a prefix and `length` random hex characters.
pub fn new_key(prefix: &str, length: usize) -> Result<NewKey, String> {
    let mut bytes = vec![0; length.div_ceil(2)];
    fill(&mut bytes)?;
    let hex: String = hex(&bytes).chars().take(length).collect();
    let text = format!("{prefix}{hex}");
    Ok(NewKey { sha256: hash(&text), text })
}

/// Makes a secret of 32 random bytes, in unpadded base64url.
pub fn new_secret() -> Result<String, String> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Base64UrlUnpadded::encode_string(&bytes))
}

/// Fills `bytes` with random bytes of the operating system.
pub fn fill(bytes: &mut [u8]) -> Result<(), String> {
    getrandom::fill(bytes).map_err(|error| format!("the operating system returned no random bytes: {error}"))
}

/// Returns the SHA-256 of a key in lower-case hex.
pub fn hash(key: &str) -> String {
    hex(&digest(key))
}

/// Runs `callbound gen-key`: the key on standard output, its policy entry on standard error, so that a pipe gets only the key.
pub fn gen_key(arguments: &GenKey) -> Result<(), String> {
    if !(16..=512).contains(&arguments.length) {
        return Err(format!("--length {}: expected a whole number from 16 to 512", arguments.length));
    }
    check_prefix(&arguments.prefix)?;
    let key = new_key(&arguments.prefix, arguments.length)?;
    print(&key.text)?;
    let id = serde_json::Value::from(arguments.id.as_str());
    note("The key is shown only once. Its entry in the policy's `api_keys`:");
    note(format_args!(
        "  {{\"id\": {id}, \"sha256\": \"{}\", \"team\": \"…\", \"scopes\": […]}}",
        key.sha256
    ));
    Ok(())
}

/// Refuses a prefix that no policy may have; an empty one is allowed.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if prefix.is_empty() || ((3..=32).contains(&prefix.len()) && prefix.bytes().all(is_allowed)) {
        return Ok(());
    }
    Err(format!("prefix `{prefix}`: expected 3 to 32 characters of `A-Z a-z 0-9 - _`, or \"\" for none"))
}

/// Runs `callbound gen-secret`.
pub fn gen_secret() -> Result<(), String> {
    print(new_secret()?)
}

/// Runs `callbound hash-key`. Reads standard input, because process lists and shell histories show arguments.
pub fn hash_key() -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "expected one API key on standard input, as in `printf %s \"$KEY\" | callbound hash-key`".into(),
        );
    }
    print(hash(key))
}

#[cfg(test)]
mod tests {
    use super::check_prefix;

    #[test]
    fn prefix_that_no_policy_may_have_is_refused() {
        for prefix in ["", "demo_", "a-b", &"x".repeat(32)] {
            assert_eq!(check_prefix(prefix), Ok(()));
        }
        for prefix in ["a b", "ab", "demo.", "d\u{e9}mo_", "demo_\n", &"x".repeat(33)] {
            assert!(check_prefix(prefix).is_err_and(|message| message.contains("expected 3 to 32")));
        }
    }
}
