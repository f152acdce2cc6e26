//! Section `token_keys`: the keys that sign and verify the tokens of our families.

use super::ids::check_id;
use super::reader::{List, Reader, document, words};
use super::secrets::{Purpose, SecretDocument, SecretLoader};
use crate::credential::{Algorithm, Jwk, Key};

document! {
    /// One key that signs or verifies tokens.
    pub struct TokenKeyDocument {
        /// Id of the key in the tokens' header.
        kid: String,
        /// Signature algorithm; `RS256` is verified only.
        alg: AlgorithmWord,
        /// Source of the secret; this or `jwk`.
        secret: Option<SecretDocument>,
        /// Public key of tokens that are signed by another program.
        jwk: Option<JwkDocument>,
        /// True when this key signs; one per family; default false.
        sign: bool = false,
        /// Families whose tokens the key is for; absent: all.
        families: Option<List<String>>,
    }
}

words! {
    /// Signature algorithm of a key (RFC 7518 section 3.1, RFC 8037).
    pub enum AlgorithmWord {
        /// HMAC with SHA-256; the key is a secret of at least 32 bytes.
        Hs256 = "HS256",
        /// Signatures with Ed25519.
        EdDsa = "EdDSA",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// RSASSA-PKCS1-v1_5 with SHA-256; verified, never signed.
        Rs256 = "RS256",
    }
}

impl From<AlgorithmWord> for Algorithm {
    fn from(word: AlgorithmWord) -> Self {
        match word {
            AlgorithmWord::Hs256 => Self::Hs256,
            AlgorithmWord::EdDsa => Self::EdDsa,
            AlgorithmWord::Es256 => Self::Es256,
            AlgorithmWord::Rs256 => Self::Rs256,
        }
    }
}

document! {
    /// A public key (RFC 7517).
    pub struct JwkDocument {
        /// Kind of key: `OKP`, `EC` or `RSA`.
        kty: String,
        /// Curve: `Ed25519` or `P-256`.
        crv: Option<String>,
        /// The point, or its x coordinate, in base64url.
        x: Option<String>,
        /// The point's y coordinate, in base64url.
        y: Option<String>,
        /// The RSA modulus, in base64url.
        n: Option<String>,
        /// The RSA exponent, in base64url.
        e: Option<String>,
        /// Id of the key.
        kid: Option<String>,
        /// Algorithm the key is for.
        alg: Option<String>,
        /// Use of the key: `sig`.
        r#use: Option<String>,
        /// Operations of the key: `verify`.
        key_ops: Option<List<String>>,
    }
}

impl JwkDocument {
    pub(super) fn compile(&self) -> Jwk {
        Jwk {
            kty: self.kty.clone(),
            crv: self.crv.clone(),
            x: self.x.clone(),
            y: self.y.clone(),
            n: self.n.clone(),
            e: self.e.clone(),
            kid: self.kid.clone(),
            alg: self.alg.clone(),
            usage: self.r#use.clone(),
            key_ops: self.key_ops.as_deref().map(<[String]>::to_vec),
        }
    }
}

/// Checks the keys as far as no family is needed for it.
pub(super) fn check_all(keys: &List<TokenKeyDocument>, families: &[&str], at: &Reader<'_>) {
    for (index, (at, key)) in keys.each(at).enumerate() {
        check_id(&key.kid, &at.member("kid"));
        let is_taken = keys.iter().take(index).any(|other| other.kid == key.kid);
        at.member("kid").check_unique("key id", &key.kid, is_taken);
        if key.secret.is_some() == key.jwk.is_some() {
            at.refuse("expected either `secret` or `jwk`");
        }
        if key.sign && key.jwk.is_some() && key.secret.is_none() {
            at.member("sign").refuse("a public key cannot sign");
        }
        let families_at = at.member("families");
        for (at, name) in key.families.iter().flat_map(|list| list.each(&families_at)) {
            at.check_listed(name, "tokens", families.iter().copied());
        }
    }
}

impl TokenKeyDocument {
    /// Returns whether the key is for a family's tokens.
    pub(super) fn is_for(&self, family: &str) -> bool {
        self.families.as_ref().is_none_or(|names| names.iter().any(|name| name == family))
    }

    /// Loads the key for a family; `None` when it is wrong, or when secrets are left out.
    pub(super) fn load(&self, family: &str, loader: &SecretLoader<'_>, at: &Reader<'_>) -> Option<Key> {
        let algorithm = Algorithm::from(self.alg);
        let key = match (&self.jwk, &self.secret) {
            (Some(_), Some(_)) | (None, None) => return None,
            (Some(jwk), None) => Key::from_jwk(algorithm, &jwk.compile()),
            (None, Some(secret)) => {
                let purpose = Purpose { used_for: family, kid: &self.kid, algorithm };
                Key::from_secret(algorithm, &loader.load(secret, &purpose, &at.member("secret"))?)
            }
        };
        key.map_err(|error| at.refuse(error.to_string())).ok()
    }
}
