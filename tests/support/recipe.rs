//! Tokens made from recipes: valid, forged and malformed ones.

use std::collections::BTreeMap;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use ed25519_dalek::Signer as _;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Recipe of a token; absent members come from the recipe it is `like`, then from the policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    like: Option<String>,
    family: Option<String>,
    kid: Option<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    #[serde(default)]
    header: Map<String, Value>,
    claims_text: Option<String>,
    header_text: Option<String>,
    alg: Option<String>,
    key: Option<KeySource>,
    alter: Option<Alter>,
    prefix: Option<String>,
}

/// Key material in place of that of the recipe's `kid`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeySource {
    /// Secret of another key of the policy.
    Kid(String),
    /// Bytes in unpadded base64url.
    Base64url(String),
}

/// Change to a finished token.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Alter {
    /// Flips one bit of the signature.
    Signature,
    /// Changes the claims and keeps the signature.
    Claims,
    /// Drops the last character.
    Truncate,
    /// Adds base64 padding.
    Pad,
}

/// Everything tokens are made from.
#[derive(Clone, Debug)]
pub struct Mint {
    pub recipes: BTreeMap<String, Recipe>,
    pub policy: Value,
    pub env: BTreeMap<String, String>,
}

impl Mint {
    /// Makes the token of this name at `now`; `None` if there is no such recipe.
    pub fn token(&self, name: &str, now: u64) -> Option<Result<String, String>> {
        self.recipes.get(name)?;
        Some(self.make(name, now).map_err(|problem| format!("token `{name}`: {problem}")))
    }

    fn make(&self, name: &str, now: u64) -> Result<String, String> {
        let recipe = self.resolve(name, 0)?;
        let family_name = recipe.family.as_deref().ok_or("no `family`")?;
        let family = &self.policy["tokens"][family_name];
        let prefix = recipe.prefix.as_deref().or(family["prefix"].as_str());
        let prefix = prefix.ok_or("the policy has no such family, or it has no prefix: give a `prefix`")?;
        let kid = recipe.kid.clone().or_else(|| self.signing_kid(family_name)).ok_or("no `kid`")?;
        let alg = recipe.alg.clone().or_else(|| self.alg_of(&kid)).ok_or("no such `kid` in the policy")?;

        let header = match &recipe.header_text {
            Some(text) => text.clone(),
            None => {
                let typ = family["typ"].as_str().map_or(format!("{family_name}+jwt"), str::to_owned);
                let header = json!({"alg": alg, "kid": kid, "typ": typ});
                with_changes(header, &recipe.header, None).to_string()
            }
        };
        let claims = match &recipe.claims_text {
            Some(text) => {
                text.replace("${now}", &now.to_string()).replace("${soon}", &(now + 600).to_string())
            }
            None => {
                let mut claims = json!({"iss": family["issuer"], "jti": name, "iat": now, "exp": now + 900});
                if !family["audience"].is_null() {
                    claims["aud"] = family["audience"].clone();
                }
                with_changes(claims, &recipe.claims, Some(now)).to_string()
            }
        };
        let key = self.key_bytes(&recipe, family_name, &kid, &alg)?;
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = sign(&alg, &key, signed.as_bytes())?;
        Ok(format!("{prefix}{}", altered(recipe.alter, &signed, signature, &claims)))
    }

    /// The recipe with everything it inherits.
    fn resolve(&self, name: &str, depth: usize) -> Result<Recipe, String> {
        let own = self.recipes.get(name).ok_or_else(|| format!("no recipe `{name}`"))?.clone();
        let Some(like) = own.like.as_deref().filter(|_| depth < 8) else { return Ok(own) };
        let mut base = self.resolve(like, depth + 1)?;
        base.claims.extend(own.claims);
        base.header.extend(own.header);
        Ok(Recipe {
            like: None,
            family: own.family.or(base.family),
            kid: own.kid.or(base.kid),
            claims: base.claims,
            header: base.header,
            claims_text: own.claims_text.or(base.claims_text),
            header_text: own.header_text.or(base.header_text),
            alg: own.alg.or(base.alg),
            key: own.key.or(base.key),
            alter: own.alter.or(base.alter),
            prefix: own.prefix.or(base.prefix),
        })
    }

    fn token_keys(&self) -> &[Value] {
        self.policy["token_keys"].as_array().map_or(&[], Vec::as_slice)
    }

    fn signing_kid(&self, family: &str) -> Option<String> {
        let serves = |key: &Value| match key["families"].as_array() {
            Some(families) => families.iter().any(|name| name == family),
            None => true,
        };
        let key = self.token_keys().iter().find(|key| key["sign"] == true && serves(key))?;
        key["kid"].as_str().map(str::to_owned)
    }

    fn config_of(&self, kid: &str) -> Option<&Value> {
        self.token_keys().iter().find(|key| key["kid"] == kid)
    }

    fn alg_of(&self, kid: &str) -> Option<String> {
        self.config_of(kid)?["alg"].as_str().map(str::to_owned)
    }

    fn key_bytes(&self, recipe: &Recipe, family: &str, kid: &str, alg: &str) -> Result<Vec<u8>, String> {
        match &recipe.key {
            Some(KeySource::Base64url(text)) => decode(text),
            Some(KeySource::Kid(other)) => self.secret_of(other, family, alg),
            None if alg == "none" => Ok(Vec::new()),
            None => self.secret_of(kid, family, alg),
        }
    }

    /// Returns the secret of a key of the policy, as the gateway would load it.
    fn secret_of(&self, kid: &str, family: &str, alg: &str) -> Result<Vec<u8>, String> {
        let key = self.config_of(kid).ok_or_else(|| format!("no key `{kid}`; give a `key`"))?;
        let own_alg = key["alg"].as_str().unwrap_or(alg);
        let secret = &key["secret"];
        let from = |source: &Value| match (source["env"].as_str(), source["inline"].as_str()) {
            (Some(name), _) => decode(self.env.get(name).ok_or_else(|| format!("`env` has no {name}"))?),
            (None, Some(text)) => decode(text),
            _ => Err(format!("key `{kid}` has no secret; give a `key`")),
        };
        match secret.get("derive") {
            Some(master) => Ok(derive(&from(master)?, &format!("callbound/1|{family}|{kid}|{own_alg}"))),
            None => from(secret),
        }
    }
}

/// Sets and removes members; with `now`, the times among them are relative to it.
fn with_changes(mut object: Value, changes: &Map<String, Value>, now: Option<u64>) -> Value {
    for (name, change) in changes {
        let is_time = matches!(name.as_str(), "iat" | "exp" | "nbf");
        let relative = now.filter(|_| is_time).and_then(|now| now.checked_add_signed(change.as_i64()?));
        object[name.as_str()] = match (change.get("raw"), relative) {
            (Some(raw), _) => raw.clone(),
            (None, Some(time)) => json!(time),
            (None, None) => change.clone(),
        };
        if change.get("absent") == Some(&json!(true)) {
            object.as_object_mut().map(|members| members.remove(name));
        }
    }
    object
}

fn altered(alter: Option<Alter>, signed: &str, mut signature: Vec<u8>, claims: &str) -> String {
    match alter {
        Some(Alter::Signature) => {
            if let Some(byte) = signature.get_mut(7) {
                *byte ^= 1;
            }
        }
        Some(Alter::Claims) => {
            let mut other: Value = serde_json::from_str(claims).unwrap_or_default();
            other["jti"] = json!("another");
            let header = signed.split('.').next().unwrap_or_default();
            return format!("{header}.{}.{}", encode(other.to_string().as_bytes()), encode(&signature));
        }
        _ => {}
    }
    let mut token = format!("{signed}.{}", encode(&signature));
    match alter {
        Some(Alter::Truncate) => drop(token.pop()),
        Some(Alter::Pad) => token.push('='),
        _ => {}
    }
    token
}

fn sign(alg: &str, key: &[u8], message: &[u8]) -> Result<Vec<u8>, String> {
    match alg {
        "HS256" => Ok(hmac(key, &[message])),
        "EdDSA" => {
            let seed = <&[u8; 32]>::try_from(key).map_err(|_| "an Ed25519 seed has 32 bytes")?;
            Ok(ed25519_dalek::SigningKey::from_bytes(seed).sign(message).to_vec())
        }
        "ES256" => {
            let key = p256::ecdsa::SigningKey::from_slice(key).map_err(|error| error.to_string())?;
            let signature: p256::ecdsa::Signature = key.sign(message);
            Ok(signature.to_bytes().to_vec())
        }
        "RS256" => {
            // Forgeries that only name the algorithm have no RSA key.
            let Ok(key) = rsa::PrivateKey::from_pkcs1_der(key) else { return Ok(hmac(key, &[message])) };
            Ok(rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(key).sign(message).to_vec())
        }
        "none" => Ok(Vec::new()),
        // Unknown algorithm: its signature bytes do not matter.
        _ => Ok(hmac(key, &[message])),
    }
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    let mut block = [0u8; 64];
    let hashed = Sha256::digest(key);
    let key = if key.len() > block.len() { &hashed[..] } else { key };
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36));
    let inner = message.iter().fold(inner, |hash, part| hash.chain_update(part)).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

/// RFC 5869 with SHA-256, one block.
fn derive(master: &[u8], info: &str) -> Vec<u8> {
    let extracted = hmac(b"callbound", &[master]);
    hmac(&extracted, &[info.as_bytes(), &[1]])
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| "a secret is not unpadded base64url".to_owned())
}
