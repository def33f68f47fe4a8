//! Decoding, against the tools that make compressed images.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

use aule_image::{Compression, DecodeError, DecodedImage, Input, Limits, ReadAt, Summary, detect};
use aule_testkit::{noise::Noise, tool};
use aule_tree::Digest;
use std::{
    fs::{self, File},
    io::{self, Cursor, Read},
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

/// 3 MiB and a bit: noise, text and zeros.
fn raw_image() -> Vec<u8> {
    let mut noise = Noise::new(11);
    let mut raw = noise.bytes(700_000);
    raw.resize(1_500_000, 0);
    raw.extend(b"some text that compresses well. ".repeat(20_000));
    raw.resize(raw.len() + 900_000, 0);
    raw.extend(noise.bytes(12_345));
    raw.resize(raw.len() + 70_000, 0);
    raw
}

fn output() -> File {
    tempfile::tempfile().unwrap()
}

fn decode(bytes: &[u8], threads: usize, limits: Limits) -> Result<(Summary, Vec<u8>), DecodeError> {
    let file = output();
    let compression = detect(&bytes[..bytes.len().min(6)]);
    let input = Input::Seekable(Arc::new(bytes.to_vec()));
    let image = DecodedImage::start(input, compression, file.try_clone().unwrap(), threads, limits).unwrap();
    let summary = image.join()?;
    let mut raw = vec![1; summary.raw_size as usize];
    image.read_at(0, &mut raw).unwrap();
    assert_eq!((image.size().unwrap(), image.known_size().unwrap()), (summary.raw_size, Some(summary.raw_size)));
    assert_eq!(file.metadata().unwrap().len(), summary.raw_size);
    assert!(file.metadata().unwrap().blocks() * 512 <= summary.stored_size + 65536, "the output is not sparse");
    Ok((summary, raw))
}

fn zip_of(files: &[(&str, &[u8])], options: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let archive = directory.path().join("archive.zip");
    tool::run("zip", &[&["-q", "-r", "-j"], options, &[tool::text(&archive), tool::text(directory.path())]].concat());
    fs::read(archive).unwrap()
}

/// Every form of a compressed image that is decoded, with its name.
fn forms(raw: &[u8]) -> Vec<(&'static str, Compression, Vec<u8>)> {
    let filter = |program: &str, arguments: &[&str], input: &[u8]| tool::run_with_input(program, arguments, input);
    let (first, second) = raw.split_at(1_000_000);
    let xz = |input: &[u8]| filter("xz", &["-1", "-c"], input);
    let zstd = |input: &[u8]| filter("zstd", &["-3", "-c"], input);
    let gzip = |input: &[u8]| filter("gzip", &["-n", "-c"], input);
    let skippable = b"\x5e\x2a\x4d\x18\x05\0\0\0hello";
    vec![
        ("one block", Compression::Xz, xz(raw)),
        ("several blocks", Compression::Xz, filter("xz", &["-1", "-T2", "--block-size=256KiB", "-c"], raw)),
        ("several streams and padding", Compression::Xz, [xz(first), vec![0; 8], xz(second), vec![0; 4]].concat()),
        ("no check", Compression::Xz, filter("xz", &["-1", "-C", "none", "-c"], raw)),
        ("SHA-256", Compression::Xz, filter("xz", &["-1", "-C", "sha256", "-c"], raw)),
        ("one frame", Compression::Zstd, zstd(raw)),
        ("several frames", Compression::Zstd, [zstd(first), skippable.to_vec(), zstd(second)].concat()),
        ("a skippable frame first", Compression::Zstd, [skippable.to_vec(), zstd(raw)].concat()),
        ("long window", Compression::Zstd, filter("zstd", &["-3", "--long=26", "-c"], raw)),
        ("one member", Compression::Gzip, gzip(raw)),
        ("several members", Compression::Gzip, [gzip(first), gzip(second)].concat()),
        ("one file", Compression::Zip, zip_of(&[("disk", raw)], &[])),
        ("one image", Compression::Zip, zip_of(&[("disk.IMG", raw), ("README", b"read me")], &[])),
        ("stored", Compression::Zip, zip_of(&[("disk.img", raw)], &["-0"])),
        ("as it is", Compression::Raw, raw.to_vec()),
    ]
}

#[test]
fn every_form_gives_the_same_image() {
    let raw = raw_image();
    for (name, compression, bytes) in forms(&raw) {
        let name = format!("{} {name}", compression.word());
        assert_eq!(detect(&bytes), compression, "{name}");
        for threads in [1, 2] {
            let (summary, decoded) =
                decode(&bytes, threads, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(decoded == raw, "{name}, {threads} threads: other bytes");
            assert_eq!(summary.input_digest, Digest::of(&bytes), "{name}");
            assert_eq!(summary.input_size, bytes.len() as u64, "{name}");
        }
        // A stream in small pieces, as a download gives them.
        let slow = Slow(Cursor::new(bytes));
        let stream = Input::Stream(Box::new(slow));
        let image = DecodedImage::start(stream, compression, output(), 2, Limits::default()).unwrap();
        match image.join() {
            Ok(summary) => assert_eq!(summary.raw_size, raw.len() as u64, "{name}"),
            Err(error) => {
                assert!(compression == Compression::Zip && error.to_string().contains("local file"), "{error}")
            }
        }
    }
}

/// At most 1000 bytes at once.
struct Slow(Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1000);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn truncated_and_corrupt_input_is_told_with_its_place() {
    let raw = raw_image();
    for (name, compression, bytes) in forms(&raw) {
        if compression == Compression::Raw {
            continue;
        }
        let name = format!("{} {name}", compression.word());
        let several = name.contains("several") || name.contains("skippable");
        for cut in [7, 30, bytes.len() / 3, bytes.len() / 2, bytes.len() - 100, bytes.len() - 1] {
            match decode(&bytes[..cut], 2, Limits::default()) {
                // Where one stream ends and the next one is missing altogether, nothing is wrong.
                Ok((_, decoded)) => assert!(several && decoded.len() < raw.len(), "{name}: {cut} bytes pass"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(compression.word()) && text.contains("byte"), "{name}: {text}");
                }
            }
        }
        let mut noise = Noise::new(bytes.len() as u64);
        let mut found = 0;
        for _ in 0..40 {
            let mut changed = bytes.clone();
            let at = 6 + noise.below(bytes.len() - 6);
            changed[at] ^= 1 << noise.below(8);
            match decode(&changed, 2, Limits::default()) {
                Ok((_, decoded)) if decoded == raw => {}
                Ok(_) => assert!(name.contains("no check") || name.starts_with("zip one image"), "{name}: byte {at}"),
                Err(_) => found += 1,
            }
        }
        // Without a check nobody can tell.
        assert!(found > 25 || name.contains("no check"), "{name}: {found} of 40 changes found");
    }
}

#[test]
fn limits_are_kept() {
    let raw = raw_image();
    for (name, compression, bytes) in forms(&raw) {
        let limits = Limits { raw_size: raw.len() as u64 - 1, ..Limits::default() };
        let error = decode(&bytes, 2, limits).unwrap_err();
        assert!(matches!(error, DecodeError::TooLarge { .. }), "{} {name}: {error}", compression.word());
    }
    // 3 GiB of zeros in 3 KB.
    let bomb = tool::run("sh", &["-c", "head -c 3G /dev/zero | zstd -1 -c"]);
    let limits = Limits { expansion: 1000, ..Limits::default() };
    let error = decode(&bomb, 1, limits).unwrap_err();
    assert!(matches!(error, DecodeError::Expansion { .. }), "{error}");
    let large = tool::run_with_input("xz", &["-0", "--lzma2=dict=128MiB", "-c"], &raw);
    let long = tool::run_with_input("zstd", &["--long=30", "-1", "-c"], &raw);
    for (bytes, threads) in [(&large, 1), (&large, 2), (&long, 1)] {
        let error = decode(bytes, threads, Limits { memory: 64 << 20, ..Limits::default() }).unwrap_err();
        assert!(matches!(error, DecodeError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("memory"), "{error}");
    }
}

#[test]
fn an_archive_must_say_what_its_image_is() {
    let (image, other) = (&b"image"[..], &b"other"[..]);
    for (files, is_good) in [
        (&[("a", image), ("b", other)][..], false),
        (&[("a.img", image), ("b.img", other)], false),
        (&[("a.img", image), ("b", other), ("c", other)], true),
    ] {
        let result = decode(&zip_of(files, &[]), 1, Limits::default());
        match result {
            Ok((_, raw)) => assert!(is_good && raw == image),
            Err(error) => assert!(!is_good && error.to_string().contains("exactly one"), "{error}"),
        }
    }
    assert!(decode(b"PK\x05\x06", 1, Limits::default()).is_err());
}

/// A stream that gives what the test sends it.
struct Fed(Receiver<Vec<u8>>, Vec<u8>);

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.recv().unwrap_or_default();
        }
        if self.1 == b"fail" {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the network is gone"));
        }
        let length = self.1.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.1[..length]);
        self.1.drain(..length);
        Ok(length)
    }
}

#[test]
fn readers_get_what_is_decoded_and_wait_for_the_rest() {
    let (send, receive) = channel();
    let input = Input::Stream(Box::new(Fed(receive, Vec::new())));
    let image = DecodedImage::start(input, Compression::Raw, output(), 1, Limits::default()).unwrap();
    let image = Arc::new(image);
    assert_eq!(image.known_size().unwrap(), None);
    send.send(vec![1; 1 << 20]).unwrap();
    let mut byte = [0];
    image.read_at(1000, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    let waiting = image.clone();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 10];
        waiting.read_at((3 << 20) - 10, &mut bytes).map(|()| bytes)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reader.is_finished(), "the reader did not wait");
    send.send(vec![0; 1 << 20]).unwrap();
    send.send(vec![3; (1 << 20) + 5]).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), [3; 10]);
    // What is a hole can be read while it is the file's end.
    let mut hole = [9; 100];
    image.read_at(1 << 20, &mut hole).unwrap();
    assert_eq!(hole, [0; 100]);
    let waiting = image.clone();
    let past = std::thread::spawn(move || waiting.read_at(3 << 20, &mut [0; 6]));
    drop(send);
    assert_eq!(past.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    image.read_at(3 << 20, &mut [0; 5]).unwrap();
    assert_eq!(image.join().unwrap().raw_size, (3 << 20) + 5);
}

#[test]
fn errors_of_the_input_reach_waiting_readers() {
    let (send, receive) = channel();
    let input = Input::Stream(Box::new(Fed(receive, Vec::new())));
    let image = Arc::new(DecodedImage::start(input, Compression::Gzip, output(), 1, Limits::default()).unwrap());
    let waiting = image.clone();
    let reader = std::thread::spawn(move || waiting.read_at(0, &mut [0]));
    send.send(tool::run_with_input("gzip", &["-c"], &raw_image())[..1000].to_vec()).unwrap();
    send.send(b"fail".to_vec()).unwrap();
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("at byte 1000: the network is gone"), "{error}");
    assert!(matches!(image.join(), Err(DecodeError::Read { position: 1000, .. })));
    assert!(image.size().is_err() && image.known_size().is_err());
}

#[test]
fn a_full_disk_is_told() {
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let input = Input::Seekable(Arc::new(vec![1; 3 << 20]));
    let image = DecodedImage::start(input, Compression::Raw, full, 1, Limits::default()).unwrap();
    let error = image.join().unwrap_err();
    assert!(
        matches!(&error, DecodeError::Write { error, .. } if error.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
}

#[test]
fn dropping_stops_the_work() {
    let (send, receive) = channel();
    let input = Input::Stream(Box::new(Fed(receive, Vec::new())));
    let image = DecodedImage::start(input, Compression::Raw, output(), 1, Limits::default()).unwrap();
    let feeder = std::thread::spawn(move || {
        let mut sent = 0;
        while send.send(vec![1; 1 << 20]).is_ok() && sent < 10_000 {
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        sent
    });
    image.read_at(0, &mut [0]).unwrap();
    drop(image);
    assert!(feeder.join().unwrap() < 10_000, "decoding went on");
}

#[test]
fn a_raw_image_is_read_where_it_is() {
    let raw = raw_image();
    let image = DecodedImage::in_place(Arc::new(raw.clone())).unwrap();
    assert_eq!(image.size().unwrap(), raw.len() as u64);
    let mut bytes = [0; 100];
    image.read_at(12_345, &mut bytes).unwrap();
    assert_eq!(bytes, raw[12_345..12_445]);
    let summary = image.join().unwrap();
    assert_eq!((summary.input_digest, summary.raw_size), (Digest::of(&raw), raw.len() as u64));
}
