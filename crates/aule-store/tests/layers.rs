//! Layer blobs: what goes in comes out, for us at random and for GNU tar and zstd as a whole.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

#[path = "common/everything.rs"]
mod everything;

use aule_store::{
    Store,
    layer::{ArchiveOptions, ArchiveWriter, CHUNK, Contents, LayerTable},
};
use aule_tree::{Content, Inode, Kind, What};
use everything::{metadata, noise, path};
use std::{io::Read, process::Command};

/// More than three frames.
const LARGE: usize = 3 * CHUNK + 17;

#[test]
fn contents_come_back_at_random() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let archive = everything::write(&store, 2, LARGE);
    let (tree, contents) = Contents::open(&store, &[archive.digest]).unwrap();
    let content = |name: &str| tree.get(&path(name)).unwrap().content().unwrap().clone();

    let big = noise(LARGE, 1);
    assert_eq!(content("big"), Content::of(&big));
    assert_eq!(contents.read(&content("big"), 1 << 30).unwrap(), big);
    for (offset, length) in [(0, 1), (CHUNK - 1, 2), (CHUNK, CHUNK), (5, 2 * CHUNK + 3), (big.len() - 1, 1), (7, 0)] {
        let mut buffer = vec![0; length];
        contents.read_at(&content("big"), offset as u64, &mut buffer).unwrap();
        assert_eq!(buffer, big[offset..offset + length], "{offset} {length}");
    }
    assert!(contents.read_at(&content("big"), big.len() as u64, &mut [0]).is_err());
    assert_eq!(contents.read(&content("empty"), 10).unwrap(), b"");
    assert_eq!(contents.read(&content("bin/ping"), 10).unwrap(), b"hello");
    assert!(contents.read(&content("bin/ping"), 4).is_err(), "more than the limit");
    assert_eq!(tree.id(&path("bin/ping")), tree.id(&path("bin/ping6")));

    let mut buffer = [9; 20];
    contents.read_at(&content("sparse"), 4090, &mut buffer).unwrap();
    assert_eq!(&buffer, b"\0\0\0\0\0\x000123456789\0\0\0\0");
    contents.read_at(&content("sparse"), (1 << 40) - 4, &mut buffer[..4]).unwrap();
    assert_eq!(&buffer[..4], b"\0\0\0\0");
    let table = LayerTable::read(&store, archive.digest).unwrap();
    assert_eq!(table, archive.table);
}

#[test]
fn the_number_of_jobs_does_not_show() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let digests: Vec<_> = [1, 2, 7].into_iter().map(|jobs| everything::write(&store, jobs, LARGE).digest).collect();
    assert!(digests.iter().all(|it| *it == digests[0]), "{digests:?}");
}

#[test]
fn copied_frames_give_the_same_archive() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let archive = everything::write(&store, 2, LARGE);
    let (_, contents) = Contents::open(&store, &[archive.digest]).unwrap();
    let options = ArchiveOptions { jobs: 1, table: true, diff_id: true };
    let copy = ArchiveWriter::write(&store, options, |writer| {
        for it in &archive.table.entries {
            match &it.entry.what {
                What::Node(Inode { metadata, kind: Kind::File(content) }) => {
                    writer.copy_file(it.entry.path.clone(), metadata.clone(), content, &contents)?;
                }
                _ => writer.entry(it.entry.clone())?,
            }
        }
        Ok::<_, aule_store::StoreError>(())
    })
    .unwrap();
    assert_eq!((copy.digest, copy.diff_id), (archive.digest, archive.diff_id));
}

/// GNU tar is the judge of names, owners, times, links, devices and sparse files.
#[test]
fn gnu_tar_and_zstd_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let archive = everything::write(&store, 2, LARGE);
    let blob = store.blob_path(archive.digest);
    let plain = Command::new("zstd").args(["-dc"]).arg(&blob).output().unwrap();
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    assert_eq!(Some(aule_tree::Digest::of(&plain.stdout)), archive.diff_id);
    let tar = directory.path().join("plain.tar");
    std::fs::write(&tar, &plain.stdout).unwrap();
    let listed = Command::new("tar")
        .args(["--numeric-owner", "--full-time", "--xattrs", "-tvvf"])
        .arg(&tar)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let text: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let text = text.join("\n");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for wanted in [
        "-rwsr-xr-x* 4000000000/3000000 5 2023-11-14 22:13:20 bin/ping",
        "h---------",
        "crw-rw-rw- 0/0 1,3 2023-11-14 22:13:20 dev/null",
        "brw-rw---- 0/0 259,1048575 2023-11-14 22:13:20 dev/odd",
        "prw------- 0/0 0 2023-11-14 22:13:20 dev/pipe",
        "1099511627776 2023-11-14 22:13:20 sparse",
        // 1.5 s before 1970; GNU tar 1.34 prints such times with the second rounded towards 1970.
        "1969-12-31 23:59:59.5 n\\366n-utf8",
        "1970-01-01 00:00:01.000000001 time",
        &format!("link -> {}", "t".repeat(300)),
        &format!("{}/{}", "d".repeat(200), "n".repeat(200)),
    ] {
        if wanted == "h---------" {
            // With the metadata of the file: tools that unpack set them once more.
            let link = text.lines().find(|line| line.contains("bin/ping6 link to bin/ping")).unwrap();
            assert!(link.starts_with("hrwsr-xr-x* 4000000000/3000000 0 2023-11-14 22:13:20 "), "{link}");
        } else {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }
}

/// Bit rot in a layer: nothing is copied from it, and whoever writes the same layer again heals it.
#[test]
fn damaged_contents_are_noticed_and_healed() {
    let directory = tempfile::tempdir().unwrap();
    let archive = everything::write(&Store::open(directory.path()).unwrap(), 2, LARGE);
    let blob = directory.path().join("blobs/sha256").join(archive.digest.hex());
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let frame = archive.table.entries.iter().find(|it| it.entry.path == path("big")).unwrap().frames[1];
    bad[(frame.offset + frame.length / 2) as usize] ^= 1;
    std::fs::write(&blob, bad).unwrap();
    // Another process: this one knows what it wrote.
    let store = Store::open(directory.path()).unwrap();
    let (tree, contents) = Contents::open(&store, &[archive.digest]).unwrap();
    let content = |name: &str| tree.get(&path(name)).unwrap().content().unwrap();
    assert!(contents.check(content("big")).is_err());
    contents.check(content("bin/ping")).unwrap();
    contents.check_all(&store, std::iter::once(content("bin/ping"))).unwrap();
    assert!(contents.check_all(&store, tree.contents().into_iter()).is_err());
    assert!(store.verify_blob(archive.digest).is_err());
    everything::write(&store, 1, LARGE);
    assert_eq!(std::fs::read(&blob).unwrap(), good);
    store.verify_blob(archive.digest).unwrap();
    // Small blobs, too.
    let small = store.put(b"small").unwrap();
    std::fs::write(store.blob_path(small), b"SMALL").unwrap();
    store.put(b"small").unwrap();
    store.verify_blob(small).unwrap();
}

/// A name that means removal, and a link to what is not there, would be something else to whoever unpacks the layer.
#[test]
fn what_a_layer_cannot_hold_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = ArchiveOptions { jobs: 1, table: true, diff_id: true };
    let link = aule_tree::LayerEntry { path: path("b"), what: What::Link(path("a")) };
    let whiteout = everything::node("etc/.wh.hosts", metadata(0o755), Kind::Directory);
    for (entry, wanted) in [(link, "did not come before it"), (whiteout, "says that something is gone")] {
        let error = ArchiveWriter::write(&store, options, |writer| writer.entry(entry)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

/// The keyword of an attribute ends at its first `=`; GNU tar writes and reads such names with `%`.
#[test]
fn odd_names_of_attributes_survive_gnu_tar() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = ArchiveOptions { jobs: 1, table: false, diff_id: false };
    let xattrs = [(b"user.a=b%c".to_vec(), b"v".to_vec())].into();
    let archive = ArchiveWriter::write(&store, options, |writer| {
        writer.file(path("f"), aule_tree::Metadata { xattrs, ..metadata(0o644) }, 0, None, &mut &b""[..])
    })
    .unwrap();
    let plain = Command::new("zstd").arg("-dc").arg(store.blob_path(archive.digest)).output().unwrap().stdout;
    let tar = directory.path().join("plain.tar");
    std::fs::write(&tar, plain).unwrap();
    let listed = Command::new("tar").args(["--xattrs", "--xattrs-include=*", "-tvvf"]).arg(&tar).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains("user.a=b%c"), "{text}");
}

#[test]
fn a_damaged_table_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let archive = everything::write(&store, 2, LARGE);
    let mut bytes = Vec::new();
    std::fs::File::open(store.blob_path(archive.digest)).unwrap().read_to_end(&mut bytes).unwrap();
    for at in (bytes.len() - 400..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let digest = store.put(&damaged).unwrap();
        let read = LayerTable::read(&store, digest);
        // The frame header before the footer is for zstd only; a flip there does not reach us.
        assert!(read.is_err() || read.unwrap() == archive.table, "byte {at}");
    }
    for length in [0, 10, 63, 64, bytes.len() / 2, bytes.len() - 1] {
        let digest = store.put(&bytes[..length]).unwrap();
        assert!(LayerTable::read(&store, digest).is_err(), "cut to {length}");
    }
}

#[test]
fn a_short_content_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = ArchiveOptions { jobs: 2, table: true, diff_id: true };
    let failed = ArchiveWriter::write(&store, options, |writer| {
        writer.file(path("a"), metadata(0o644), 10, None, &mut &b"short"[..])
    });
    assert!(failed.unwrap_err().to_string().contains("/a changed while it was read"));
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count(), 0);
}
