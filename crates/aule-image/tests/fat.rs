//! FAT in both directions, against mkfs.vfat, mtools and fsck.vfat.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

use aule_image::{
    EntryKind, FatContent, FatEntry, FatOptions, FatSummary, FatWriteError, Filesystem, ReadAt, open, write_fat,
};
use aule_testkit::{
    fat,
    noise::{Noise, damage},
    tool,
};
use aule_tree::{Timestamp, TreePath};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Cursor, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

/// Paths with content; directories have none. Times are even seconds.
type Files = BTreeMap<String, (i64, Option<Vec<u8>>)>;

fn boot_files() -> Files {
    let mut noise = Noise::new(3);
    let mut files = Files::new();
    let mut add = |path: &str, content: Option<Vec<u8>>| {
        let time = 1_700_000_000 + 2 * files.len() as i64;
        files.insert(path.into(), (time, content));
    };
    for directory in ["overlays", "overlays/deep", "overlays/deep/er", "NOTHING", "ünïcödé Nämé 名前"] {
        add(directory, None);
    }
    for (path, size) in [
        ("config.txt", 700),
        ("cmdline.txt", 1),
        ("empty", 0),
        ("KERNEL8.IMG", 300_000),
        ("vmlinuz", 70_000),
        ("bcm2711-rpi-4-b.dtb", 50_000),
        ("bcm2711-rpi-400.dtb", 512),
        ("overlays/deep/er/a name with spaces, and = signs.dtbo", 4096),
        ("ünïcödé Nämé 名前/ßñ.txt", 33),
        ("UPPER.lower", 5),
        ("two.dots.txt", 5),
    ] {
        add(path, Some(noise.bytes(size)));
    }
    for index in 0..300 {
        add(&format!("overlays/overlay-number-{index}.dtbo"), Some(noise.bytes(index)));
    }
    files
}

fn entries(files: &Files) -> Vec<FatEntry<'_>> {
    let entry = |(path, (time, content)): (&String, &(i64, Option<Vec<u8>>))| {
        let content = content.clone();
        FatEntry {
            path: TreePath::new(path).unwrap(),
            mtime: Timestamp::from_seconds(*time),
            what: match content {
                None => FatContent::Directory,
                Some(content) => FatContent::File {
                    size: content.len() as u64,
                    open: Box::new(move || Ok(Box::new(Cursor::new(content)) as Box<dyn Read>)),
                },
            },
        }
    };
    files.iter().map(entry).collect()
}

fn options(size: Option<u64>) -> FatOptions {
    FatOptions { size, label: "system-boot".into(), volume_id: 0x1234_abcd, max_size: None }
}

fn written(files: &Files, size: Option<u64>) -> (Vec<u8>, FatSummary) {
    let mut out = Cursor::new(Vec::new());
    let summary = write_fat(&mut out, entries(files), &options(size)).unwrap();
    (out.into_inner(), summary)
}

/// What a filesystem holds, in the form of [`Files`].
fn read(filesystem: &dyn Filesystem) -> Files {
    let mut files = Files::new();
    let entries = filesystem.entries().unwrap();
    assert!(entries[0].path.is_root());
    assert!(entries.iter().map(|entry| &entry.path).is_sorted());
    for entry in &entries[1..] {
        assert_eq!((entry.metadata.mode, entry.metadata.uid, entry.link), (0o755, 0, None));
        let content = match &entry.what {
            EntryKind::Directory => None,
            EntryKind::File { handle, size, .. } => {
                let mut content = vec![1; *size as usize];
                filesystem.read(handle, 0, &mut content).unwrap();
                assert!(filesystem.read(handle, *size, &mut [0]).is_err());
                Some(content)
            }
            other => panic!("{}: {other:?}", entry.path),
        };
        let path = String::from_utf8(entry.path.as_bytes().to_vec()).unwrap();
        files.insert(path, (entry.metadata.mtime.seconds, content));
    }
    files
}

fn write_directory(files: &Files, target: &Path) {
    for (path, (time, content)) in files.iter().chain(files.iter().filter(|(_, (_, content))| content.is_none())) {
        let path = target.join(path);
        match content {
            None => fs::create_dir_all(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
        tool::run("touch", &["-d", &format!("@{time}"), tool::text(&path)]);
    }
}

fn read_directory(root: &Path) -> Files {
    let listing = aule_testkit::listing::of_directory(root);
    let file = |(path, listed): (Vec<u8>, aule_testkit::listing::Listed)| {
        let content = (listed.kind == "file").then_some(listed.content);
        (String::from_utf8(path).unwrap(), (listed.mtime.seconds, content))
    };
    listing.into_iter().map(file).filter(|(path, _)| !path.is_empty()).collect()
}

fn without_directory_times(files: Files) -> Files {
    files
        .into_iter()
        .map(|(path, (time, content))| (path, (if content.is_some() { time } else { 0 }, content)))
        .collect()
}

#[test]
fn reads_what_mtools_wrote() {
    let files = boot_files();
    let source = tempfile::tempdir().unwrap();
    write_directory(&files, source.path());
    for (kib, mkfs, kind) in [
        (8 << 10, &["-F12", "-s8"][..], "FAT12"),
        (16 << 10, &["-F16", "-s4"], "FAT16"),
        (40 << 10, &["-F32", "-s1"], "FAT32"),
        (40 << 10, &["-F32", "-s1", "-f1", "-R64"], "FAT32 with one table"),
    ] {
        let image = fat::make(kib, mkfs, Some(source.path()));
        let filesystem = open(Arc::new(image)).unwrap();
        assert_eq!((filesystem.label(), filesystem.kind()), (&b"system-boot"[..], "vfat"), "{kind}");
        assert_eq!(filesystem.uuid(), "1234-ABCD", "{kind}");
        let (got, wanted) = (read(filesystem.as_ref()), files.clone());
        // mcopy does not keep the times of directories.
        let (got, wanted) = (without_directory_times(got), without_directory_times(wanted));
        let other: Vec<_> = got.keys().filter(|path| !wanted.contains_key(*path)).collect();
        assert!(got.keys().eq(wanted.keys()), "{kind}: other paths: {other:?}");
        assert!(got == wanted, "{kind}: contents or times differ");
    }
}

#[test]
fn writes_what_others_read() {
    let files = boot_files();
    for size in [None, Some(40 << 20), Some(300 << 20)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot.img");
        // A file, as most of it is zeros that are not written.
        let image = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let summary = write_fat(&image, entries(&files), &options(size)).unwrap();
        assert_eq!(image.metadata().unwrap().len(), summary.size);
        assert!(image.metadata().unwrap().blocks() * 512 < 4 << 20, "free space is written");
        fat::check(&path).unwrap_or_else(|text| panic!("fsck.vfat finds errors: {text}"));
        let extracted = directory.path().join("files");
        fs::create_dir(&extracted).unwrap();
        fat::extract(&path, &extracted);
        let (got, wanted) = (read_directory(&extracted), files.clone());
        assert!(without_directory_times(got) == without_directory_times(wanted), "mcopy reads something else");
        assert!(read(open(Arc::new(image)).unwrap().as_ref()) == files, "our reader reads something else");
        let blkid = tool::run("blkid", &["-p", "-o", "export", tool::text(&path)]);
        let blkid = String::from_utf8(blkid).unwrap();
        for line in ["LABEL=system-boot", "LABEL_FATBOOT=system-boot", "UUID=1234-ABCD", "VERSION=FAT32", "TYPE=vfat"] {
            assert!(blkid.lines().any(|found| found == line), "blkid does not say {line}: {blkid}");
        }
        let info = String::from_utf8(tool::run("minfo", &["-i", tool::text(&path), "::"])).unwrap();
        for line in [
            "sector size: 512 bytes",
            "reserved (boot) sectors: 32",
            "fats: 2",
            "media descriptor byte: 0xf8",
            "infoSector location=1",
            "backup boot sector=6",
            "disk label=\"system-boot\"",
        ] {
            assert!(info.lines().any(|found| found == line), "minfo does not say {line}: {info}");
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let files = boot_files();
    let (first, _) = written(&files, None);
    let mut shuffled = entries(&files);
    shuffled.reverse();
    let mut out = Cursor::new(Vec::new());
    write_fat(&mut out, shuffled, &options(None)).unwrap();
    assert!(first == out.into_inner(), "the order of the input shows in the output");
    let digest = aule_tree::Digest::of(&first).to_string();
    // Fails when the format changes: then the version of the boot artifact must change too.
    assert_eq!(digest, include_str!("golden/fat.digest").trim());
}

#[test]
fn larger_sectors_are_read() {
    // mtools does not write to them, so only an empty volume can be had.
    let filesystem = open(Arc::new(fat::make(300 << 10, &["-F32", "-S4096", "-s1"], None))).unwrap();
    assert_eq!((filesystem.label(), filesystem.entries().unwrap().len()), (&b"system-boot"[..], 1));
}

#[test]
fn names_outside_the_basic_plane_survive() {
    // mtools does not know them, so only the reader here can tell.
    let files = Files::from([("🦀 and 🦞.txt".into(), (1_700_000_000, Some(vec![1; 1000])))]);
    assert!(read(open(Arc::new(written(&files, None).0)).unwrap().as_ref()) == files);
}

#[test]
fn an_image_may_start_anywhere_in_the_output() {
    let files = Files::from([("a".into(), (1_700_000_000, Some(vec![1; 1000])))]);
    let mut out = Cursor::new(Vec::new());
    out.set_position(1 << 20);
    let summary = write_fat(&mut out, entries(&files), &options(None)).unwrap();
    let image = out.into_inner();
    assert_eq!(image.len() as u64, (1 << 20) + summary.size);
    assert!(image[1 << 20..] == written(&files, None).0);
}

#[test]
fn what_fat_cannot_hold_is_refused() {
    let one = |path: &str| Files::from([(path.to_owned(), (0, Some(Vec::new())))]);
    let two = |a: &str, b: &str| Files::from([(a.to_owned(), (0, None)), (b.to_owned(), (0, None))]);
    let cases: [(Files, &str); 8] = [
        (one("what?.txt"), "'?'"),
        (one("a\\b"), "'\\\\'"),
        (one("tab\t"), "'\\t'"),
        (one("dot."), "ends with a dot"),
        (one("space "), "ends with a dot or a space"),
        (two("Config.txt", "config.TXT"), "/Config.txt and /config.TXT"),
        (two("Ä", "ä"), "upper and lower case"),
        (one("no/directory"), "directory that is not to be written"),
    ];
    for (files, wanted) in cases {
        let mut out = Cursor::new(Vec::new());
        let error = write_fat(&mut out, entries(&files), &options(None)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(out.into_inner().is_empty(), "something was written");
    }
    let file = |size: u64, content: &'static [u8]| FatEntry {
        path: TreePath::new("file").unwrap(),
        mtime: Timestamp::default(),
        what: FatContent::File { size, open: Box::new(move || Ok(Box::new(content) as Box<dyn Read>)) },
    };
    let attempt = |entries: Vec<FatEntry<'static>>, options: &FatOptions| {
        write_fat(Cursor::new(Vec::new()), entries, options).unwrap_err()
    };
    assert!(matches!(attempt(vec![file(1 << 32, b"")], &options(None)), FatWriteError::FileTooLarge { .. }));
    assert!(matches!(
        attempt(vec![file(3, b"ab")], &options(None)),
        FatWriteError::ContentLength { is_longer: false, .. }
    ));
    assert!(matches!(
        attempt(vec![file(1, b"ab")], &options(None)),
        FatWriteError::ContentLength { is_longer: true, .. }
    ));
    assert!(matches!(attempt(vec![file(0, b""), file(0, b"")], &options(None)), FatWriteError::Twice { .. }));
    let small = FatOptions { max_size: Some(64 << 20), ..options(None) };
    assert!(matches!(attempt(vec![file(100 << 20, b"")], &small), FatWriteError::DoesNotFit { .. }));
    for label in ["", "twelve chars", "ünïcode", "a/b"] {
        let options = FatOptions { label: label.into(), ..options(None) };
        assert!(matches!(attempt(vec![], &options), FatWriteError::Label { .. }), "{label}");
    }
    let mut unreadable = file(1, b"");
    unreadable.what = FatContent::File { size: 1, open: Box::new(|| Err(io::Error::other("gone"))) };
    assert!(attempt(vec![unreadable], &options(None)).to_string().contains("reading /file failed: gone"));
}

#[test]
fn damaged_images_give_errors_and_never_more() {
    let source = tempfile::tempdir().unwrap();
    let files = boot_files();
    write_directory(&files, source.path());
    // FAT32 is as large as 33 MiB; `fuzz_corpus` damages it in a smaller form.
    for (kib, mkfs) in [(2 << 10, &["-F12", "-s2", "-r112"]), (2300, &["-F16", "-s1", "-r112"])] {
        let image = fat::make(kib, mkfs, Some(source.path()));
        let data = image.len().min(1 << 20);
        let mut failed = 0;
        for bytes in damage(&image, &[0..512, 512..40_000, 0..data], 150, 7) {
            failed += u32::from(read_all(Arc::new(bytes)).is_err());
        }
        assert!(failed > 12, "{mkfs:?}: only {failed} damages were found");
    }
}

fn read_all(image: Arc<dyn ReadAt>) -> Result<(), Box<dyn std::error::Error>> {
    let filesystem = open(image)?;
    for entry in filesystem.entries()? {
        if let EntryKind::File { handle, size, .. } = entry.what {
            let mut content = vec![0; size.min(1 << 20) as usize];
            filesystem.read(&handle, 0, &mut content)?;
        }
    }
    Ok(())
}

#[test]
fn loops_and_cross_links_are_found() {
    let (image, _) = written(&boot_files(), None);
    let table = 32 * 512;
    let put = |cluster: usize, next: u32| {
        let mut bytes = image.clone();
        bytes[table + 4 * cluster..][..4].copy_from_slice(&next.to_le_bytes());
        read_all(Arc::new(bytes)).unwrap_err().to_string()
    };
    for (cluster, next, wanted) in
        [(2, 2, "used twice"), (2, 0, "ends early"), (2, 0x0fff_fff0, "ends early"), (3, 2, "used twice")]
    {
        let error = put(cluster, next);
        assert!(error.contains(wanted), "cluster {cluster} -> {next}: {error}");
    }
}
