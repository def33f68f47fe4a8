//! OpenPGP signatures, against gpg.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

use aule_image::{Signature, SignatureError, Verified, verify_signature, verify_signature_by};
use aule_testkit::gpg::Gpg;
use aule_tree::Timestamp;

const MADE: &str = "20260101T000000";
/// 2026-02-01
const SIGNED: &str = "20260201T000000";
const SIGNED_AT: i64 = 1_769_904_000;
const DAY: i64 = 86400;
const TEXT: &[u8] =
    b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  image.img.xz\n- dashes\n\nlast  \n";

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp::from_seconds(seconds))
}

fn verify(data: &[u8], signature: Signature<'_>, keyring: &[u8]) -> Result<Verified, SignatureError> {
    verify_signature(data, signature, keyring, at(SIGNED_AT + DAY))
}

#[test]
fn good_signatures_of_all_forms_count() {
    let gpg = Gpg::new();
    for (user, algorithm) in
        [("rsa <rsa@example.com>", "rsa2048"), ("ed <ed@example.com>", "ed25519"), ("nist <n@example.com>", "nistp256")]
    {
        gpg.make_key(user, algorithm, MADE, "never");
    }
    for armored_ring in [true, false] {
        let ring = gpg.export(&[], armored_ring);
        for user in ["rsa <rsa@example.com>", "ed <ed@example.com>", "nist <n@example.com>"] {
            for armor in [true, false] {
                let detached = gpg.sign(user, SIGNED, armor, &[], TEXT);
                let verified = verify(TEXT, Signature::Detached(&detached), &ring).unwrap();
                assert_eq!((verified.user_id.as_str(), verified.text.as_slice()), (user, TEXT));
                assert_eq!(verified.time, Timestamp::from_seconds(SIGNED_AT));
                let list = String::from_utf8(gpg.run(&["--with-colons", "--fingerprint", user], b"")).unwrap();
                assert!(list.contains(&format!("fpr:::::::::{}:", verified.fingerprint)), "{}", verified.fingerprint);
            }
            let clear = gpg.clear_sign(user, SIGNED, TEXT);
            let verified = verify(&clear, Signature::Clearsigned, &ring).unwrap();
            // White space at the end of lines is not signed (RFC 9580, section 7.2).
            let wanted = String::from_utf8(TEXT.to_vec()).unwrap().replace("last  \n", "last\n");
            assert_eq!(String::from_utf8(verified.text).unwrap(), wanted, "{user}");
        }
    }
    // Several armored files joined.
    let joined = [gpg.export(&["rsa"], true), gpg.export(&["ed"], true)].concat();
    let detached = gpg.sign("ed", SIGNED, true, &[], TEXT);
    assert_eq!(verify(TEXT, Signature::Detached(&detached), &joined).unwrap().user_id, "ed <ed@example.com>");
    // Two signatures in one file, of which one key is known.
    let both = [gpg.sign("rsa", SIGNED, false, &[], TEXT), gpg.sign("ed", SIGNED, false, &[], TEXT)].concat();
    let verified = verify(TEXT, Signature::Detached(&both), &gpg.export(&["ed"], false)).unwrap();
    assert_eq!(verified.user_id, "ed <ed@example.com>");
}

#[test]
fn a_signing_subkey_counts() {
    let gpg = Gpg::new();
    let time = format!("{MADE}!");
    gpg.run(&["--faked-system-time", &time, "--quick-gen-key", "sub", "ed25519", "cert", "never"], b"");
    let list = String::from_utf8(gpg.run(&["--with-colons", "--list-keys"], b"")).unwrap();
    let fingerprint = list.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap().trim_end_matches(':');
    gpg.run(&["--faked-system-time", &time, "--quick-add-key", fingerprint, "ed25519", "sign", "60d"], b"");
    let signature = gpg.sign("sub", SIGNED, false, &[], TEXT);
    let ring = gpg.export(&[], false);
    let verified = verify(TEXT, Signature::Detached(&signature), &ring).unwrap();
    assert_ne!(verified.fingerprint, fingerprint);
    assert_eq!(verified.primary, fingerprint);
    let late = verify_signature(TEXT, Signature::Detached(&signature), &ring, at(SIGNED_AT + 60 * DAY));
    assert!(matches!(late, Err(SignatureError::Expired { .. })), "{late:?}");
}

#[test]
fn only_some_keys_of_a_keyring_count() {
    let gpg = Gpg::new();
    for user in ["one", "two"] {
        gpg.make_key(user, "ed25519", MADE, "never");
    }
    let ring = gpg.export(&[], false);
    let sign = |user: &str| gpg.sign(user, SIGNED, false, &[], TEXT);
    let (one, two) = (sign("one"), sign("two"));
    let by = |signature: &[u8]| verify(TEXT, Signature::Detached(signature), &ring).unwrap().fingerprint;
    let (first, second) = (by(&one), by(&two));
    let both = [one.clone(), two].concat();
    let only = |signature: &[u8], wanted: &str| {
        let counts = |signer: &str, primary: &str| signer == wanted && primary == wanted;
        verify_signature_by(TEXT, Signature::Detached(signature), &ring, at(SIGNED_AT + DAY), &counts)
    };
    // Whichever signature comes first.
    for wanted in [&first, &second] {
        assert_eq!(only(&both, wanted).unwrap().fingerprint, *wanted);
    }
    assert!(matches!(only(&one, &second), Err(SignatureError::UnknownKey { .. })));
}

#[test]
fn changed_data_or_signatures_do_not_count() {
    let gpg = Gpg::new();
    gpg.make_key("key", "ed25519", MADE, "never");
    gpg.make_key("other", "ed25519", MADE, "never");
    let ring = gpg.export(&["key"], false);
    let detached = gpg.sign("key", SIGNED, false, &[], TEXT);
    let mut changed = TEXT.to_vec();
    changed[0] ^= 1;
    let bad = verify(&changed, Signature::Detached(&detached), &ring);
    assert!(matches!(bad, Err(SignatureError::Bad { .. })), "{bad:?}");
    for index in 0..detached.len() {
        let mut changed = detached.clone();
        changed[index] ^= 0x10;
        if let Ok(verified) = verify(TEXT, Signature::Detached(&changed), &ring) {
            // Unhashed parts may change (the issuer's key id is there).
            assert_eq!(verified.text, TEXT);
            assert!((20..detached.len() - 64).contains(&index), "byte {index} is not covered");
        }
        let _ = verify(TEXT, Signature::Detached(&detached[..index]), &ring).unwrap_err();
    }
    let clear = String::from_utf8(gpg.clear_sign("key", SIGNED, TEXT)).unwrap();
    for changed in [
        clear.replace("image.img.xz", "other.img.xz"),
        clear.replace("\n\nlast", "\nlast"),
        clear.replace("-----BEGIN PGP SIGNATURE", "injected\n-----BEGIN PGP SIGNATURE"),
    ] {
        assert_ne!(changed, clear);
        let bad = verify(changed.as_bytes(), Signature::Clearsigned, &ring);
        assert!(matches!(bad, Err(SignatureError::Bad { .. })), "{bad:?}");
    }
    for changed in
        [format!("before\n{clear}"), format!("{clear}after\n"), TEXT.escape_ascii().to_string(), String::new()]
    {
        let bad = verify(changed.as_bytes(), Signature::Clearsigned, &ring);
        assert!(matches!(bad, Err(SignatureError::Malformed(_))), "{bad:?}");
    }
    let foreign = gpg.sign("other", SIGNED, false, &[], TEXT);
    let unknown = verify(TEXT, Signature::Detached(&foreign), &ring);
    let Err(SignatureError::UnknownKey { keys }) = unknown else { panic!("{unknown:?}") };
    let list = String::from_utf8(gpg.run(&["--with-colons", "--fingerprint", "other"], b"")).unwrap();
    assert!(keys.len() == 1 && list.contains(&keys[0]), "{keys:?}");
    for ring in [&b""[..], b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", &detached] {
        let wrong = verify(TEXT, Signature::Detached(&detached), ring);
        assert!(matches!(wrong, Err(SignatureError::Keyring(_))), "{wrong:?}");
    }
    let empty = verify(TEXT, Signature::Detached(b""), &ring);
    assert!(matches!(empty, Err(SignatureError::Malformed(_))), "{empty:?}");
}

#[test]
fn expired_and_revoked_keys_do_not_count() {
    let gpg = Gpg::new();
    gpg.make_key("short", "rsa2048", MADE, "60d");
    let ring = gpg.export(&[], false);
    let signature = gpg.sign("short", SIGNED, false, &[], TEXT);
    let signature = Signature::Detached(&signature);
    assert!(verify_signature(TEXT, signature, &ring, at(SIGNED_AT + DAY)).is_ok());
    // Without a clock only the time of the signature counts.
    assert!(verify_signature(TEXT, signature, &ring, None).is_ok());
    let late = verify_signature(TEXT, signature, &ring, at(SIGNED_AT + 60 * DAY));
    assert!(matches!(&late, Err(SignatureError::Expired { user_id, .. }) if user_id == "short"), "{late:?}");
    let early = verify_signature(TEXT, signature, &ring, at(SIGNED_AT - 2 * DAY));
    assert!(matches!(early, Err(SignatureError::Time { .. })), "{early:?}");
    let limited = gpg.sign("short", SIGNED, false, &["--default-sig-expire", "3d"], TEXT);
    let late = verify_signature(TEXT, Signature::Detached(&limited), &ring, at(SIGNED_AT + 5 * DAY));
    assert!(matches!(late, Err(SignatureError::Time { reason: "it has expired", .. })), "{late:?}");

    let gpg = Gpg::new();
    gpg.make_key("lost", "ed25519", MADE, "never");
    let signature = gpg.sign("lost", SIGNED, false, &[], TEXT);
    assert!(verify(TEXT, Signature::Detached(&signature), &gpg.export(&[], false)).is_ok());
    let certificate = gpg.revocation();
    gpg.run(&["--import"], &certificate);
    let revoked = verify(TEXT, Signature::Detached(&signature), &gpg.export(&[], false));
    assert!(matches!(revoked, Err(SignatureError::Revoked { .. })), "{revoked:?}");
}

#[test]
fn keys_that_can_be_forged_do_not_count() {
    let gpg = Gpg::new();
    for (algorithm, is_good) in [("rsa1024", false), ("dsa2048", false), ("rsa2016", false), ("rsa2048", true)] {
        gpg.make_key(algorithm, algorithm, MADE, "never");
        let signature = gpg.sign(algorithm, SIGNED, false, &["--digest-algo", "SHA256"], TEXT);
        match verify(TEXT, Signature::Detached(&signature), &gpg.export(&[algorithm], false)) {
            Ok(_) => assert!(is_good, "{algorithm}"),
            Err(SignatureError::UnfitKey { user_id, .. }) => assert!(!is_good && user_id == algorithm, "{algorithm}"),
            Err(error) => panic!("{algorithm}: {error}"),
        }
    }
}

#[test]
fn broken_hash_functions_do_not_count() {
    let gpg = Gpg::new();
    gpg.make_key("rsa", "rsa2048", MADE, "never");
    let ring = gpg.export(&[], false);
    for (hash, is_good) in
        [("SHA1", false), ("RIPEMD160", false), ("SHA224", false), ("SHA256", true), ("SHA512", true)]
    {
        let signature = gpg.sign("rsa", SIGNED, false, &["--digest-algo", hash, "--allow-weak-digest-algos"], TEXT);
        match verify(TEXT, Signature::Detached(&signature), &ring) {
            Ok(_) => assert!(is_good, "{hash}"),
            Err(SignatureError::WeakHash { hash: named, .. }) => assert!(!is_good && named == hash, "{hash}: {named}"),
            Err(error) => panic!("{hash}: {error}"),
        }
    }
}
