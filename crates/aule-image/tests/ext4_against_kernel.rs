//! ext4 as the kernel wrote it, compared with what the kernel reads: every path with all that lstat, getxattr and read
//! give. Needs root and a loop device; elsewhere `tests/ext4.rs` covers what mke2fs and debugfs can make.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use aule_image::open;
use aule_testkit::{
    ext::Ext,
    listing,
    mount::{self, Mounted},
    noise::Noise,
    tool,
};
use common::compare;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

/// Fills a mounted filesystem with everything that ext4 can hold; `is_small` when its blocks have 1 KiB.
fn fill(root: &Path, is_small: bool, has_extents: bool) {
    let mut noise = Noise::new(1);
    let file = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    for size in [0usize, 1, 59, 60, 61, 100, 160, 4095, 4096, 4097, 300_000] {
        file(&format!("size-{size}"), &noise.bytes(size));
    }
    for length in [1usize, 59, 60, 61, 255, 1000, 4095] {
        // An ext filesystem with 1 KiB blocks has room for 1023 bytes.
        let _ = symlink("t".repeat(length), root.join(format!("link-{length}")));
    }
    // Sparse: a hole at the start, one too small to count, one between, one at the end.
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise.bytes(8192), 1 << 20).unwrap();
    sparse.write_all_at(&noise.bytes(4096), (1 << 20) + 20480).unwrap();
    sparse.write_all_at(&noise.bytes(100), 5 << 20).unwrap();
    sparse.set_len((6 << 20) + 17).unwrap();
    File::create(root.join("all-hole")).unwrap().set_len(40 << 20).unwrap();
    fs::write(root.join("allocated"), b"").unwrap();
    if has_extents {
        tool::run("fallocate", &["-l", "200000", tool::text(&root.join("allocated"))]);
        tool::run("fallocate", &["-n", "-l", "200000", tool::text(&root.join("size-100"))]);
    }
    // Many extents: every other block is written.
    let many = File::create(root.join("many-extents")).unwrap();
    for index in 0..1500 {
        many.write_all_at(&noise.bytes(4096), index * 8192).unwrap();
    }
    // A hash tree of two levels, with names of all lengths and bytes.
    let large = root.join("large-directory");
    fs::create_dir(&large).unwrap();
    for index in 0..3000usize {
        let name = format!("{index:04}-{}", "n".repeat(index % 250));
        File::create(large.join(name)).unwrap();
    }
    for index in (0..3000).step_by(7) {
        let name = format!("{index:04}-{}", "n".repeat(index % 250));
        fs::remove_file(large.join(name)).unwrap();
    }
    fs::create_dir_all(root.join("a/b/c/d")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    file("a/b/c/d/file", b"deep");
    {
        use std::os::unix::ffi::OsStrExt;
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"x").unwrap();
    }
    fs::hard_link(root.join("size-300000"), root.join("a/hardlink")).unwrap();
    fs::hard_link(root.join("size-300000"), root.join("a/b/hardlink")).unwrap();
    for (name, kind, major, minor) in
        [("null", "c", "1", "3"), ("disk", "b", "8", "1"), ("big", "c", "4095", "1048575"), ("mid", "b", "259", "300")]
    {
        tool::run("mknod", &[tool::text(&root.join(name)), kind, major, minor]);
    }
    tool::run("mknod", &[tool::text(&root.join("fifo")), "p"]);
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    for (name, owner) in [("size-0", "100000:200000"), ("size-1", "4294967294:65536"), ("link-1", "70000:70000")] {
        tool::run("chown", &["-h", owner, tool::text(&root.join(name))]);
    }
    for (name, mode) in [("size-59", 0o4755), ("size-60", 0o2711), ("empty", 0o1777), ("size-61", 0o000)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, time) in [
        ("size-4095", "@0.000000001"),
        ("size-4096", "@2147483648.5"),
        ("size-4097", "@4294967296.999999999"),
        ("size-160", "@-1.25"),
        ("sparse", "@-2147483648"),
        ("allocated", "@15032385535"),
        ("fifo", "@6442450944.123456789"),
    ] {
        tool::run("touch", &["-h", "-d", time, tool::text(&root.join(name))]);
    }
    attributes(root, is_small);
}

fn attributes(root: &Path, is_small: bool) {
    let set = |name: &str, key: &str, value: &[u8]| xattr_set(&root.join(name), key, value);
    set("size-0", "user.short", b"value");
    set("size-0", "user.empty", b"");
    set("size-0", "trusted.overlay.opaque", b"y");
    set("size-1", "user.block", &[7; 700]);
    set("size-1", "security.other", b"\0\xff");
    set("a", "user.on-a-directory", b"d");
    set("size-59", "user.large", &vec![9; if is_small { 600 } else { 1900 }]);
    xattr_set_raw(&root.join("size-61"), b"user.not-utf8-\xff", b"v");
    tool::run("setcap", &["cap_net_raw+ep", tool::text(&root.join("size-4096"))]);
    let acl = ["-m", "u:1000:r,g:100000:rw,m::rwx"];
    tool::run("setfacl", &[acl[0], acl[1], tool::text(&root.join("size-4097"))]);
    tool::run("setfacl", &["-d", acl[0], acl[1], tool::text(&root.join("a/b"))]);
    // On links and devices only trusted and security attributes can be.
    set("null", "trusted.device", b"1");
}

fn xattr_set(path: &Path, key: &str, value: &[u8]) {
    xattr_set_raw(path, key.as_bytes(), value);
}

fn xattr_set_raw(path: &Path, key: &[u8], value: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    xattr::set(path, std::ffi::OsStr::from_bytes(key), value)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Options of mke2fs, and whether an attribute of 60 KB fits.
const VARIANTS: [(&str, &[&str], bool); 11] = [
    ("as Ubuntu makes it", &["-b", "4096"], false),
    ("small blocks", &["-b", "1024"], false),
    ("old inodes", &["-b", "4096", "-I", "128", "-O", "^metadata_csum"], false),
    ("no checksums", &["-b", "4096", "-O", "^metadata_csum,^64bit"], false),
    ("inline data", &["-b", "4096", "-O", "inline_data", "-I", "512"], false),
    ("values in inodes", &["-b", "4096", "-O", "ea_inode,metadata_csum_seed"], true),
    ("ext3", &["-b", "4096", "-t", "ext3"], false),
    ("ext2", &["-t", "ext2", "-b", "2048"], false),
    ("many groups", &["-b", "4096", "-O", "meta_bg,^resize_inode,sparse_super2", "-g", "1024", "-N", "8192"], false),
    ("clusters", &["-b", "4096", "-O", "bigalloc", "-C", "16384", "-N", "8192"], false),
    ("clusters of small blocks", &["-b", "1024", "-O", "bigalloc", "-C", "65536", "-N", "4096"], false),
];

#[test]
fn reads_what_the_kernel_wrote() {
    if !mount::is_possible() {
        eprintln!("not run: images cannot be mounted here");
        return;
    }
    for (name, options, large_values) in VARIANTS {
        eprintln!("{name}");
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        Ext { kib: 96 << 10, options, ..Ext::default() }.make_at(&image);
        {
            let mounted = Mounted::new(&image, "rw");
            let old_inodes = options.contains(&"128");
            if old_inodes {
                fill_old(mounted.path());
            } else {
                let is_small = options.iter().any(|option| matches!(*option, "1024" | "2048"));
                fill(mounted.path(), is_small, !options.contains(&"-t"));
            }
            if large_values {
                xattr_set(&mounted.join("size-0"), "user.large", &Noise::new(5).bytes(60_000));
            }
        }
        let wanted = listing::of_directory(Mounted::new(&image, "ro").path());
        let filesystem = open(Arc::new(File::open(&image).unwrap())).unwrap();
        assert_eq!(filesystem.label(), b"writable", "{name}");
        compare(name, filesystem.as_ref(), &wanted);
    }
}

/// Inodes of 128 bytes hold neither nanoseconds nor years after 2038, and attributes go to a block.
fn fill_old(root: &Path) {
    fs::write(root.join("file"), b"content").unwrap();
    tool::run("touch", &["-d", "@-5", tool::text(&root.join("file"))]);
    xattr_set(&root.join("file"), "user.a", b"b");
    fs::create_dir(root.join("directory")).unwrap();
    symlink("target", root.join("link")).unwrap();
}

#[test]
fn a_dirty_journal_is_replayed() {
    if !mount::is_possible() {
        eprintln!("not run: images cannot be mounted here");
        return;
    }
    let journals: [(&str, &[&str], &str); 4] = [
        ("checksums v3", &[], "data=ordered"),
        ("data in the journal", &[], "data=journal"),
        ("no checksums", &["-O", "^metadata_csum,^64bit"], "data=journal"),
        ("ext3, small blocks", &["-t", "ext3", "-b", "1024"], "data=ordered"),
    ];
    for (name, options, mount_options) in journals {
        let directory = tempfile::tempdir().unwrap();
        let (image, copy) = (directory.path().join("image"), directory.path().join("copy"));
        Ext { kib: 64 << 10, options, ..Ext::default() }.make_at(&image);
        {
            let mounted = Mounted::new(&image, &format!("rw,commit=300,{mount_options}"));
            for index in 0..300 {
                fs::create_dir_all(mounted.join(&format!("d{}/e{index}", index % 7))).unwrap();
                fs::write(mounted.join(&format!("d{}/e{index}/file", index % 7)), format!("content {index}")).unwrap();
            }
            // A block that begins as the journal's own blocks do is kept in a changed form.
            let mut escaped = 0xc03b_3998u32.to_be_bytes().to_vec();
            escaped.extend([5; 10_000]);
            fs::write(mounted.join("escaped"), &escaped).unwrap();
            sync(&mounted);
            for index in (0..300).step_by(3) {
                fs::remove_dir_all(mounted.join(&format!("d{}/e{index}", index % 7))).unwrap();
            }
            sync(&mounted);
            fs::write(mounted.join("after"), vec![1; 100_000]).unwrap();
            fs::rename(mounted.join("d1"), mounted.join("renamed")).unwrap();
            sync(&mounted);
            fs::copy(&image, &copy).unwrap();
        }
        let is_dirty = tool::run("dumpe2fs", &["-h", tool::text(&copy)]);
        assert!(String::from_utf8_lossy(&is_dirty).contains("needs_recovery"), "{name}: the journal is not dirty");
        let filesystem = open(Arc::new(File::open(&copy).unwrap())).unwrap();
        let before = fs::read(&copy).unwrap();
        let entries = filesystem.entries().unwrap();
        assert_eq!(before, fs::read(&copy).unwrap(), "{name}: the image was written to");
        assert!(entries.iter().any(|entry| entry.path.as_bytes() == b"renamed"), "{name}");
        // Mounting replays the journal in the kernel.
        let wanted = listing::of_directory(Mounted::new(&copy, "rw").path());
        compare(name, filesystem_of(&before).as_ref(), &wanted);
    }
}

fn filesystem_of(bytes: &[u8]) -> Box<dyn aule_image::Filesystem> {
    open(Arc::new(bytes.to_vec())).unwrap()
}

/// Commits to the journal; blocks need not go to their places.
fn sync(mounted: &Mounted) {
    tool::run("sync", &["-f", tool::text(mounted.path())]);
}
