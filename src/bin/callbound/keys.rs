//! Making keys and secrets.

use std::io::Read as _;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use callbound::credential::digest;
use callbound::hex::hex;
use clap::Args;

/// Arguments of `gen-key`.
#[derive(Args)]
pub struct GenKey {
    /// What the key begins with, as in the policy's `credentials.api_keys[].prefix`
    prefix: String,
    /// How many random lower-case hex characters follow
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// The key's id in the policy
    #[arg(long, default_value = "backend")]
    id: String,
}

/// A key with its digest.
pub struct NewKey {
    pub text: String,
    pub sha256: String,
}

/// Makes a key of a prefix and random hex.
pub fn new_key(prefix: &str, length: usize) -> Result<NewKey, String> {
    let mut bytes = vec![0; length.div_ceil(2)];
    fill(&mut bytes)?;
    let hex: String = hex(&bytes).chars().take(length).collect();
    let text = format!("{prefix}{hex}");
    Ok(NewKey { sha256: hash(&text), text })
}

/// A secret for a keyring.
pub fn new_secret() -> Result<String, String> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Base64UrlUnpadded::encode_string(&bytes))
}

/// Fills a slice with random bytes of the operating system.
pub fn fill(bytes: &mut [u8]) -> Result<(), String> {
    getrandom::fill(bytes).map_err(|error| format!("the system gives no random bytes: {error}"))
}

/// The lower-case hex of a key's digest.
pub fn hash(key: &str) -> String {
    hex(&digest(key))
}

/// `gen-key`: the key itself on standard output, the policy entry on standard error, so that a pipe gets only the key.
pub fn gen_key(arguments: &GenKey) -> Result<(), String> {
    if !(16..=512).contains(&arguments.length) {
        return Err("--length: expected 16 to 512 characters".into());
    }
    let key = new_key(&arguments.prefix, arguments.length)?;
    println!("{}", key.text);
    eprintln!("The key is shown this once. In the policy's `api_keys`:");
    eprintln!(
        "  {{\"id\": \"{}\", \"sha256\": \"{}\", \"team\": \"…\", \"scopes\": […]}}",
        arguments.id, key.sha256
    );
    Ok(())
}

/// `gen-secret`.
pub fn gen_secret() -> Result<(), String> {
    println!("{}", new_secret()?);
    Ok(())
}

/// `hash-key`: from standard input, because arguments show in process lists and shell histories.
pub fn hash_key() -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "expected one API key on standard input, as in `printf %s \"$KEY\" | callbound hash-key`".into(),
        );
    }
    println!("{}", hash(key));
    Ok(())
}
