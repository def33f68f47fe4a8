//! Where an image comes from: lists of checksums, and OpenPGP signatures over them (RFC 9580).
//!
//! The keyring is what the user trusts, so no web of trust is asked. Certifications inside it may use old hash functions;
//! signatures over data may not.

mod checksums;
mod keyring;

pub use checksums::{Checksums, ChecksumsError};

use aule_tree::Timestamp;
use keyring::{Keyring, Standing};
use pgp::{
    composed::{CleartextSignedMessage, Deserializable, DetachedSignature},
    crypto::hash::HashAlgorithm,
    packet::{self, SignatureType},
};

/// A signature of that size is no signature.
const MAX_SIGNATURE: usize = 1 << 20;
/// The largest clear-signed text in bytes.
const MAX_TEXT: usize = 64 << 20;
/// How far a signature may lie in the future, as clocks differ: a day in seconds.
const CLOCK_SKEW: i64 = 86400;

/// The form of a signature.
#[derive(Debug, Clone, Copy)]
pub enum Signature<'a> {
    /// In a file of its own, armored or binary.
    Detached(&'a [u8]),
    /// Around the text that it signs.
    Clearsigned,
}

/// A signature that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Fingerprint of the key that signed (a subkey, where it has one for signing), in upper-case hex.
    pub fingerprint: String,
    /// Fingerprint of the primary key that it belongs to, or is.
    pub primary: String,
    /// The first user id of the key, such as `Name <address>`; empty when it has none.
    pub user_id: String,
    /// When it was signed.
    pub time: Timestamp,
    /// What was signed: of clear-signed text only what lies inside, with line feeds; of anything else all.
    pub text: Vec<u8>,
}

/// Why a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The keyring cannot be read.
    #[error("the keyring cannot be read: {0}; export it with `gpg --export --armor KEY`")]
    Keyring(String),
    /// The signature cannot be read.
    #[error("the signature cannot be read: {0}")]
    Malformed(String),
    /// No key that made a signature is in the keyring.
    #[error("no key of the keyring made the signature; it was made by {}", keys.join(" and "))]
    UnknownKey {
        /// Key ids or fingerprints, as the signature gives them.
        keys: Vec<String>,
    },
    /// The data is not what was signed.
    #[error("BAD signature by {key}: the data or the signature was changed")]
    Bad {
        /// Fingerprint of the key that claims to have made it.
        key: String,
    },
    /// The key was revoked.
    #[error("the key {key} ({user_id}) was revoked; its signatures count no more")]
    Revoked {
        /// Its fingerprint.
        key: String,
        /// Its first user id.
        user_id: String,
    },
    /// The key was expired.
    #[error("the key {key} ({user_id}) has expired; get a newer version of it, or a signature by another key")]
    Expired {
        /// Its fingerprint.
        key: String,
        /// Its first user id.
        user_id: String,
    },
    /// The signature itself has expired, or is from the future.
    #[error("the signature by {key} is not valid at this time: {reason}")]
    Time {
        /// The key's fingerprint.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// The key may not sign data.
    #[error("the key {key} ({user_id}) cannot sign data: {reason}")]
    UnfitKey {
        /// Its fingerprint.
        key: String,
        /// Its first user id.
        user_id: String,
        /// Why not.
        reason: &'static str,
    },
    /// A hash function that is broken.
    #[error("the signature by {key} uses {hash}, which is broken; a signature with SHA-256 or better is needed")]
    WeakHash {
        /// The key's fingerprint.
        key: String,
        /// The hash function.
        hash: String,
    },
}

impl SignatureError {
    /// Which of several failures tells most.
    fn weight(&self) -> u8 {
        match self {
            SignatureError::Bad { .. } => 7,
            SignatureError::Revoked { .. } => 6,
            SignatureError::Expired { .. } => 5,
            SignatureError::Time { .. } => 4,
            SignatureError::WeakHash { .. } => 3,
            SignatureError::UnfitKey { .. } => 2,
            SignatureError::UnknownKey { .. } => 1,
            SignatureError::Keyring(_) | SignatureError::Malformed(_) => 0,
        }
    }
}

/// Checks that a key of `keyring` (one or several keys, armored or binary) signed `signed`.
///
/// With `now`, keys and signatures must not have expired; without, keys must only have been valid when they signed. One
/// right signature is enough where there are several.
///
/// # Errors
/// When there is no right signature, the error tells the most serious reason.
pub fn verify_signature(
    signed: &[u8],
    signature: Signature<'_>,
    keyring: &[u8],
    now: Option<Timestamp>,
) -> Result<Verified, SignatureError> {
    verify_signature_by(signed, signature, keyring, now, &|_, _| true)
}

/// As [`verify_signature`], where only some keys of the keyring count: `counts` is asked with the fingerprints of a key and of
/// its primary key, in upper-case hex.
///
/// # Errors
/// As [`verify_signature`]; a signature by a key that does not count is one by an unknown key.
pub fn verify_signature_by(
    signed: &[u8],
    signature: Signature<'_>,
    keyring: &[u8],
    now: Option<Timestamp>,
    counts: &dyn Fn(&str, &str) -> bool,
) -> Result<Verified, SignatureError> {
    let keyring = Keyring::parse(keyring)?;
    let (signatures, hashed, text) = match signature {
        Signature::Detached(bytes) => (detached(bytes)?, signed.to_vec(), signed.to_vec()),
        Signature::Clearsigned => clear_signed(signed)?,
    };
    if signatures.is_empty() {
        return Err(SignatureError::Malformed("it holds no signature".into()));
    }
    let mut unknown = Vec::new();
    let mut worst: Option<SignatureError> = None;
    for signature in &signatures {
        match check(signature, &hashed, &keyring, now, counts) {
            Ok(Some(Signer { fingerprint, primary, user_id, time })) => {
                return Ok(Verified { fingerprint, primary, user_id, time, text });
            }
            Ok(None) => unknown.extend(issuers(signature)),
            Err(error) if worst.as_ref().is_none_or(|worst| worst.weight() < error.weight()) => worst = Some(error),
            Err(_) => {}
        }
    }
    Err(worst.unwrap_or(SignatureError::UnknownKey { keys: unknown }))
}

fn detached(bytes: &[u8]) -> Result<Vec<packet::Signature>, SignatureError> {
    let malformed = |error: pgp::errors::Error| SignatureError::Malformed(error.to_string());
    if bytes.len() > MAX_SIGNATURE {
        return Err(SignatureError::Malformed("it has more than 1 MiB".into()));
    }
    let (parsed, _) = DetachedSignature::from_reader_many(bytes).map_err(malformed)?;
    let signatures: Result<Vec<_>, _> = parsed.map(|one| one.map(|one| one.signature)).collect();
    signatures.map_err(malformed)
}

/// The signatures, the text as it was hashed, and the text for the caller.
type ClearSigned = (Vec<packet::Signature>, Vec<u8>, Vec<u8>);

fn clear_signed(bytes: &[u8]) -> Result<ClearSigned, SignatureError> {
    if bytes.len() > MAX_TEXT {
        return Err(SignatureError::Malformed("the clear-signed text has more than 64 MiB".into()));
    }
    let (message, _) =
        CleartextSignedMessage::from_armor(bytes).map_err(|error| SignatureError::Malformed(error.to_string()))?;
    let hashed = message.signed_text();
    let mut text = hashed.replace("\r\n", "\n").into_bytes();
    // The line break before the signature is no part of what is signed, but text files end with one.
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    Ok((message.signatures().to_vec(), hashed.into_bytes(), text))
}

/// Who made a signature, and when.
struct Signer {
    fingerprint: String,
    primary: String,
    user_id: String,
    time: Timestamp,
}

/// `None` when no key of the keyring that counts claims the signature.
fn check(
    signature: &packet::Signature,
    data: &[u8],
    keyring: &Keyring,
    now: Option<Timestamp>,
    counts: &dyn Fn(&str, &str) -> bool,
) -> Result<Option<Signer>, SignatureError> {
    let mut failure = None;
    for key in keyring.claimed_by(signature) {
        let (fingerprint, primary) = (key.fingerprint(), key.primary());
        if !counts(&fingerprint, &primary) {
            continue;
        }
        match check_with(signature, data, &key, now) {
            Ok(time) => return Ok(Some(Signer { fingerprint, primary, user_id: key.user_id(), time })),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}

fn check_with(
    signature: &packet::Signature,
    data: &[u8],
    key: &keyring::Candidate<'_>,
    now: Option<Timestamp>,
) -> Result<Timestamp, SignatureError> {
    let fingerprint = key.fingerprint();
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err(SignatureError::Malformed("it is not a signature over data".into()));
    }
    let hash = signature.hash_alg();
    let is_strong = matches!(
        hash,
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    );
    if !is_strong {
        let hash = hash.map_or_else(|| "an unknown hash function".into(), |hash| hash.to_string());
        return Err(SignatureError::WeakHash { key: fingerprint, hash });
    }
    if !key.verifies(signature, data) {
        return Err(SignatureError::Bad { key: fingerprint });
    }
    let Some(made) = signature.created().map(|time| i64::from(time.as_secs())) else {
        return Err(SignatureError::Time { key: fingerprint, reason: "it does not tell when it was made" });
    };
    // Only now, as the time is what the signature says.
    let user_id = key.user_id();
    for at in [Some(made), now.map(|now| now.seconds)].into_iter().flatten() {
        match key.standing(at) {
            Standing::Good => {}
            Standing::Revoked => return Err(SignatureError::Revoked { key: fingerprint, user_id }),
            Standing::Expired => return Err(SignatureError::Expired { key: fingerprint, user_id }),
            Standing::NotYet => {
                return Err(SignatureError::Time { key: fingerprint, reason: "it is older than its key" });
            }
            Standing::Unfit(reason) => return Err(SignatureError::UnfitKey { key: fingerprint, user_id, reason }),
        }
    }
    if let Some(now) = now {
        if made > now.seconds + CLOCK_SKEW {
            return Err(SignatureError::Time { key: fingerprint, reason: "it was made in the future" });
        }
        let lifetime = signature.signature_expiration_time().map_or(0, |lifetime| lifetime.as_secs());
        if lifetime != 0 && made + i64::from(lifetime) < now.seconds {
            return Err(SignatureError::Time { key: fingerprint, reason: "it has expired" });
        }
    }
    Ok(Timestamp::from_seconds(made))
}

/// How a signature names its key.
fn issuers(signature: &packet::Signature) -> Vec<String> {
    let fingerprints: Vec<_> = signature.issuer_fingerprint().iter().map(|print| format!("{print:X}")).collect();
    if !fingerprints.is_empty() {
        return fingerprints;
    }
    let ids: Vec<_> = signature.issuer_key_id().iter().map(|id| id.to_string().to_uppercase()).collect();
    if ids.is_empty() { vec!["a key that it does not name".into()] } else { ids }
}
