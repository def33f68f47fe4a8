//! The keys that the user trusts: which of them may have made a signature, and whether they may sign at a time.

use super::SignatureError;
use pgp::{
    composed::{Deserializable, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType, SubpacketData},
    ser::Serialize,
    types::{KeyDetails, PublicParams, Tag},
};

/// All keys of a distribution fit in far less.
const MAX_KEYRING: usize = 64 << 20;
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
/// The shortest RSA key that counts, in bits, as with apt (`APT::Key::Assert-Pubkey-Algo`).
const RSA_MIN: u16 = 2048;

pub(super) struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// A key, or one of its subkeys, that may have made a signature.
pub(super) struct Candidate<'a> {
    key: &'a SignedPublicKey,
    subkey: Option<&'a SignedPublicSubKey>,
}

/// Whether a key may sign at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Revoked,
    Expired,
    NotYet,
    Unfit(&'static str),
}

impl Keyring {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let wrong = |reason: String| SignatureError::Keyring(reason);
        if bytes.len() > MAX_KEYRING {
            return Err(wrong("it has more than 64 MiB".into()));
        }
        let mut keys = Vec::new();
        let blocks =
            if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { vec![bytes.to_vec()] } else { armored(bytes) };
        for block in blocks {
            let (parsed, _) =
                SignedPublicKey::from_reader_many(block.as_slice()).map_err(|error| wrong(error.to_string()))?;
            for key in parsed {
                keys.push(key.map_err(|error| wrong(error.to_string()))?);
            }
        }
        if keys.is_empty() { Err(wrong("it holds no public key".into())) } else { Ok(Keyring { keys }) }
    }

    /// The keys that `signature` names as its maker; all, when it names none.
    pub(super) fn claimed_by(&self, signature: &Signature) -> Vec<Candidate<'_>> {
        let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
        let is_named = |key: &dyn KeyDetails| {
            let unnamed = ids.is_empty() && fingerprints.is_empty();
            unnamed || ids.contains(&&key.legacy_key_id()) || fingerprints.contains(&&key.fingerprint())
        };
        let mut candidates = Vec::new();
        for key in &self.keys {
            if is_named(&key.primary_key) {
                candidates.push(Candidate { key, subkey: None });
            }
            for subkey in key.public_subkeys.iter().filter(|subkey| is_named(&subkey.key)) {
                candidates.push(Candidate { key, subkey: Some(subkey) });
            }
        }
        candidates
    }
}

/// The armored blocks of a text; several files of keys are often joined into one.
fn armored(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    text.split(ARMOR).skip(1).map(|rest| format!("{ARMOR}{rest}").into_bytes()).collect()
}

impl Candidate<'_> {
    pub(super) fn fingerprint(&self) -> String {
        match self.subkey {
            Some(subkey) => format!("{:X}", subkey.key.fingerprint()),
            None => format!("{:X}", self.key.primary_key.fingerprint()),
        }
    }

    pub(super) fn primary(&self) -> String {
        format!("{:X}", self.key.primary_key.fingerprint())
    }

    pub(super) fn user_id(&self) -> String {
        let first = self.key.details.users.first();
        first.map_or_else(String::new, |user| String::from_utf8_lossy(user.id.id()).into_owned())
    }

    /// Whether the signature over `data` is right.
    pub(super) fn verifies(&self, signature: &Signature, data: &[u8]) -> bool {
        match self.subkey {
            Some(subkey) => signature.verify(&subkey.key, data).is_ok(),
            None => signature.verify(&self.key.primary_key, data).is_ok(),
        }
    }

    /// Whether the key may sign `at` that time, in seconds since 1970.
    pub(super) fn standing(&self, at: i64) -> Standing {
        let primary = &self.key.primary_key;
        let details = &self.key.details;
        let params = [Some(primary.public_params()), self.subkey.map(|subkey| subkey.key.public_params())];
        if let Some(reason) = params.into_iter().flatten().find_map(weakness) {
            return Standing::Unfit(reason);
        }
        // A revocation counts whenever it was made: what a lost key signed has any date that its thief likes.
        let is_revoked = |signature: &Signature| {
            signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(primary).is_ok()
        };
        if details.revocation_signatures.iter().chain(&details.direct_signatures).any(is_revoked) {
            return Standing::Revoked;
        }
        let Some(newest) = newest(self.self_signatures()) else {
            return Standing::Unfit("it has no valid signature by itself");
        };
        let created = i64::from(primary.created_at().as_secs());
        let standing = lifetime(created, newest, at);
        if standing != Standing::Good {
            return standing;
        }
        let Some(subkey) = self.subkey else {
            return if may_sign(newest) { Standing::Good } else { Standing::Unfit("it is not for signing") };
        };
        let of_type = |wanted: SignatureType| {
            let is_right = move |signature: &&Signature| {
                signature.typ() == Some(wanted)
                    && is_acceptable(signature)
                    && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
            };
            subkey.signatures.iter().filter(is_right)
        };
        if of_type(SignatureType::SubkeyRevocation).next().is_some() {
            return Standing::Revoked;
        }
        let Some(binding) = self::newest(of_type(SignatureType::SubkeyBinding)) else {
            return Standing::Unfit("it is not bound to its primary key");
        };
        // Without the subkey's own consent anybody could take it for their key.
        let consents = binding
            .embedded_signature()
            .is_some_and(|back| is_acceptable(back) && back.verify_primary_key_binding(&subkey.key, primary).is_ok());
        if !may_sign(binding) || !consents {
            return Standing::Unfit("it is not for signing");
        }
        lifetime(i64::from(subkey.key.created_at().as_secs()), binding, at)
    }

    /// The valid signatures of the primary key over itself and its user ids that are not revoked.
    fn self_signatures(&self) -> impl Iterator<Item = &Signature> {
        let primary = &self.key.primary_key;
        let direct = self.key.details.direct_signatures.iter().filter(move |signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        });
        let users = self.key.details.users.iter().flat_map(move |user| {
            let is_own =
                move |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
            let own: Vec<_> = user.signatures.iter().filter(is_own).collect();
            let revoked = own.iter().any(|signature| signature.typ() == Some(SignatureType::CertRevocation));
            own.into_iter().filter(move |_| !revoked)
        });
        direct.chain(users).filter(|signature| is_acceptable(signature))
    }
}

/// Why a key can be forged: apt takes none of these any more, either.
fn weakness(params: &PublicParams) -> Option<&'static str> {
    match params {
        // The number of its bits comes first (RFC 9580, section 3.2).
        PublicParams::RSA(rsa) => match rsa.to_bytes().ok().and_then(|bytes| bytes.first_chunk::<2>().copied()) {
            Some(bits) if u16::from_be_bytes(bits) >= RSA_MIN => None,
            _ => Some("its RSA key has less than 2048 bits"),
        },
        PublicParams::DSA(_) => Some("DSA is out of date"),
        _ => None,
    }
}

/// Certifications may use SHA-1, as many old keys do and the user trusts the file; nothing counts with MD5.
fn is_acceptable(signature: &Signature) -> bool {
    !matches!(signature.hash_alg(), None | Some(HashAlgorithm::Md5 | HashAlgorithm::None))
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map_or(0, |time| time.as_secs()))
}

fn lifetime(created: i64, signature: &Signature, at: i64) -> Standing {
    let lifetime = signature.key_expiration_time().map_or(0, |lifetime| i64::from(lifetime.as_secs()));
    if at < created {
        Standing::NotYet
    } else if lifetime != 0 && at >= created + lifetime {
        Standing::Expired
    } else {
        Standing::Good
    }
}

/// Whether key flags allow signing data; old keys have no flags and may do all (RFC 9580, section 5.2.3.29).
fn may_sign(signature: &Signature) -> bool {
    let has_flags = signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    !has_flags || signature.key_flags().sign()
}
