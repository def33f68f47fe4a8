//! A whole compressed image, decoded and read here, compared with what the kernel shows of its ext4 and mtools of its FAT.
//! Not run by itself: it needs root and an image (`AULE_TEST_IMAGE=FILE cargo test -p aule-image -- --ignored whole`).

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use aule_image::{
    Checksums, DecodedImage, Input, Limits, ReadAt, Signature, Window, detect, open, read_partitions, verify_signature,
};
use aule_testkit::{
    fat, listing,
    mount::{self, Mounted},
    tool,
};
use aule_tree::Digest;
use common::{Contents, compare_with};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Signature and checksum, where they lie beside the image.
fn check_origin(image: &Path, digest: Digest) {
    let beside = |name: &str| fs::read(image.with_file_name(name));
    let (Ok(sums), Ok(signature), Ok(keyring)) =
        (beside("SHA256SUMS"), beside("SHA256SUMS.gpg"), beside("keyring.asc"))
    else {
        return;
    };
    let verified = verify_signature(&sums, Signature::Detached(&signature), &keyring, None).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap();
    assert_eq!(Checksums::parse(&verified.text).unwrap().digest_for(name), Some(digest));
}

#[test]
#[ignore = "needs root and an image"]
fn the_whole_image_is_as_the_kernel_shows_it() {
    assert!(mount::is_possible(), "images cannot be mounted here");
    let path = PathBuf::from(std::env::var_os("AULE_TEST_IMAGE").unwrap());
    let input = File::open(&path).unwrap();
    let mut head = [0; 6];
    input.read_at(0, &mut head).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("raw");
    let output = File::options().read(true).write(true).create_new(true).open(&raw).unwrap();
    let input = Input::Seekable(Arc::new(input));
    let image = Arc::new(DecodedImage::start(input, detect(&head), output, 2, Limits::default()).unwrap());
    check_origin(&path, image.join().unwrap().input_digest);
    for partition in read_partitions(&image).unwrap().partitions {
        let window = Window::new(image.clone(), partition.start, partition.length);
        let filesystem = open(Arc::new(window)).unwrap();
        let place = format!("offset={},sizelimit={}", partition.start, partition.length);
        if filesystem.kind() == "vfat" {
            let part = directory.path().join("fat");
            let mut bytes = vec![0; partition.length as usize];
            image.read_at(partition.start, &mut bytes).unwrap();
            fs::write(&part, bytes).unwrap();
            let files = directory.path().join("files");
            fs::create_dir(&files).unwrap();
            fat::extract(&part, &files);
            // Modes and owners are not in a FAT, and mtools does not keep the times of directories.
            tool::run("chmod", &["-R", "0755", tool::text(&files)]);
            tool::run("chown", &["-R", "0:0", tool::text(&files)]);
            let mut wanted = listing::of_directory(&files);
            for entry in filesystem.entries().unwrap() {
                let listed = wanted.get_mut(entry.path.as_bytes()).unwrap();
                if listed.kind == "directory" {
                    listed.mtime = entry.metadata.mtime;
                }
            }
            compare_with("system-boot", filesystem.as_ref(), &wanted, &Contents::Listed);
        } else {
            let mounted = Mounted::new(&raw, &format!("ro,noload,{place}"));
            let wanted = listing::without_contents(mounted.path());
            compare_with("writable", filesystem.as_ref(), &wanted, &Contents::Below(mounted.path()));
        }
    }
}
