//! The seeds of the fuzz targets: small images of every variety, made with the tools of the host.

use aule_testkit::{disk, ext::Ext, fat};
use std::{fs, path::Path};

/// Name and image of every seed of a target: `partition`, `fat` or `ext4`.
pub(crate) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "partition" => partition(),
        "fat" => fat_seeds(),
        "ext4" => ext4(),
        other => panic!("there is no target {other}"),
    }
}

fn partition() -> Vec<(String, Vec<u8>)> {
    let scripts = [
        ("mbr", "label: dos\nstart=64, size=64, type=c, bootable\nstart=256, size=1000, type=83\n"),
        (
            "logical",
            "label: dos\nstart=64, size=64, type=c\nstart=256, size=4000, type=5\n\
             start=512, size=256, type=83\nstart=1024, size=256, type=83\nstart=2048, size=256, type=82\n",
        ),
        (
            "gpt",
            "label: gpt\nfirst-lba: 34\nstart=64, size=64, type=uefi, name=boot\nstart=256, size=512, type=linux\n",
        ),
    ];
    scripts.iter().map(|(name, script)| ((*name).to_owned(), disk::make(4, script))).collect()
}

fn source() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("boot/overlays")).unwrap();
    for (name, content) in [("config.txt", "kernel=vmlinuz\n"), ("boot/A", ""), ("boot/overlays/a long name.dtbo", "x")]
    {
        fs::write(root.join(name), content).unwrap();
    }
    fs::write(root.join("boot/two blocks"), vec![b'2'; 1500]).unwrap();
    fs::hard_link(root.join("config.txt"), root.join("boot/hardlink")).unwrap();
    directory
}

fn fat_seeds() -> Vec<(String, Vec<u8>)> {
    let source = source();
    let variants: [(&str, u64, &[&str]); 3] = [
        ("fat12", 64, &["-F12", "-s1", "-r16"]),
        ("fat16", 2200, &["-F16", "-s1", "-r16", "-f1"]),
        ("fat32", 34 << 10, &["-F32", "-s1", "-f1"]),
    ];
    let make = |(name, kib, options): &(&str, u64, &[&str])| {
        ((*name).to_owned(), fat::make(*kib, options, Some(source.path())))
    };
    variants.iter().map(make).collect()
}

/// Checksums would hide everything behind them from a fuzzer, so but for one seed there are none.
fn ext4() -> Vec<(String, Vec<u8>)> {
    const ENTRIES: &str = "mknod null c 1 3\nmknod pipe p\nsymlink link target\n\
        symlink long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\
        ea_set /boot user.key value\nea_set /config.txt security.capability 12345678\n";
    const LARGE_ATTRIBUTE: &str = "ea_set /boot user.large \
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n";
    let source = source();
    let sparse = source.path().join("sparse");
    let file = fs::File::create(&sparse).unwrap();
    for block in [3u64, 7, 8, 300, 500, 900, 1200] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[b's'; 1024], block * 1024).unwrap();
    }
    let journal = source.path().join("config.txt");
    let journal = format!("jo\njw -b 90 {}\njw -r 91\njc\n", journal.to_str().unwrap());
    let variants: [(&str, u64, &[&str], &str); 8] = [
        ("plain", 256, &["-O", "^metadata_csum,^has_journal"], LARGE_ATTRIBUTE),
        ("checksums", 256, &["-O", "^has_journal"], LARGE_ATTRIBUTE),
        ("inline", 256, &["-O", "^metadata_csum,^has_journal,inline_data"], ""),
        ("ext2", 256, &["-t", "ext2"], ""),
        ("64bit", 256, &["-O", "^metadata_csum,^has_journal,64bit,meta_bg,^resize_inode"], LARGE_ATTRIBUTE),
        ("4k", 512, &["-b", "4096", "-O", "^metadata_csum,^has_journal"], ""),
        ("ea-inode", 256, &["-O", "^metadata_csum,^has_journal,ea_inode"], ""),
        ("journal", 3000, &["-b", "1024", "-J", "size=1", "-O", "^metadata_csum"], &journal),
    ];
    let make = |(name, kib, options, more): &(&str, u64, &[&str], &str)| {
        let commands = [ENTRIES, more].concat();
        let options = [&["-N", "32"], *options].concat();
        (
            (*name).to_owned(),
            Ext { kib: *kib, options: &options, source: Some(source.path()), commands: &commands }.make(),
        )
    };
    variants.iter().map(make).collect()
}

/// The inputs that once made a target fail.
pub(crate) fn regressions(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/regressions").join(target);
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files
        .map(|file| {
            let path = file.unwrap().path();
            (path.display().to_string(), fs::read(path).unwrap())
        })
        .collect()
}
