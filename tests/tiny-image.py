#!/usr/bin/env python3
"""Makes a tiny image with the layout of Ubuntu's Pi images: MBR, FAT `system-boot`, ext4 `writable`.

    tests/tiny-image.py [--fat 16|32] OUT          OUT ends with .img or .img.xz; SHA256SUMS is written beside it

For tests that need many quick builds: 59 MiB raw (43 MiB with FAT16), of which 6 MiB are data. Nothing is mounted and no
root is needed: debugfs writes every inode, so that owners, devices, attributes and times are those asked for, and two
runs give the same bytes. Not bootable: its kernel and programs are noise.

Needs e2fsprogs, dosfstools, mtools, fdisk and xz-utils.
"""
import argparse
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

MIB = 1 << 20
EPOCH = 1_700_000_000
NANOSECONDS = 123_456_789
BOOT_START = MIB
ROOT_SIZE = 22 * MIB
# FAT32 has 65,525 clusters or more (Microsoft's specification, "FAT type determination"), here of one sector.
BOOT_SIZES = {16: 20 * MIB, 32: 36 * MIB}

# The bits of st_mode that say the kind (inode(7)).
DIRECTORY, FILE, SYMLINK, SOCKET, FIFO, CHARACTER, BLOCK = 0o040000, 0o100000, 0o120000, 0o140000, 0o010000, 0o020000, 0o060000


def noise(name, length):
    """Bytes that do not compress, always the same for a name."""
    return hashlib.shake_128(name.encode()).digest(length)


def unit(description, install=None):
    text = f"[Unit]\nDescription={description}\n\n[Service]\nExecStart=/usr/bin/noise-1\n"
    return text + (f"\n[Install]\nWantedBy={install}\n" if install else "")


class Ext:
    """An ext4 filesystem, written by one run of debugfs (debugfs(8))."""

    def __init__(self, directory):
        self.directory = directory
        self.commands = []
        self.count = 0

    def quoted(self, path):
        path = os.fsencode(path)
        return b'"' + path.replace(b'"', b'""') + b'"'

    def enter(self, path):
        """debugfs makes some kinds of inodes only in its working directory; gives the name in it."""
        directory, name = os.path.split(os.fsencode(path))
        self.commands.append(b"cd " + self.quoted(b"/" + directory))
        return self.quoted(name)

    def leave(self):
        self.commands.append(b"cd /")

    def host_file(self, content):
        self.count += 1
        name = os.path.join(self.directory, f"content-{self.count}")
        with open(name, "wb") as file:
            file.write(content)
        return os.fsencode(name)

    def fields(self, path, mode, owner=(0, 0), mtime=EPOCH, nanoseconds=0, **others):
        # The times are set last: every other change sets the change time.
        values = {"mode": f"0{mode:o}", "uid": owner[0], "gid": owner[1], **others,
                  # 34 bits of seconds, the lower 32 signed (the kernel's Documentation/filesystems/ext4, "Inode Timestamps").
                  "mtime": f"@{mtime & 0xFFFFFFFF}", "mtime_extra": nanoseconds << 2 | (mtime + (1 << 31) >> 32) & 3,
                  "atime": f"@{EPOCH}", "ctime": f"@{EPOCH}", "crtime": f"@{EPOCH}"}
        for field, value in values.items():
            self.commands.append(b"sif %s %s %s" % (self.quoted(path), field.encode(), str(value).encode()))

    def directory_at(self, path, mode=0o755, **fields):
        self.commands.append(b"mkdir " + self.quoted(path))
        self.fields(path, DIRECTORY | mode, **fields)

    def file(self, path, content, mode=0o644, **fields):
        content = content.encode() if isinstance(content, str) else content
        self.written(path, self.host_file(content))
        self.fields(path, FILE | mode, **fields)

    def written(self, path, host_file):
        self.commands.append(b'write "%s" %s' % (host_file, self.enter(path)))
        self.leave()

    def sparse_file(self, path, length, pieces, **fields):
        name = self.host_file(b"")
        with open(name, "r+b") as file:
            file.truncate(length)
            for offset, content in pieces:
                file.seek(offset)
                file.write(content)
        self.written(path, name)
        self.fields(path, FILE | 0o644, **fields)

    def symlink(self, path, target):
        self.commands.append(b"symlink %s %s" % (self.quoted(path), self.quoted(target)))
        self.fields(path, SYMLINK | 0o777)

    def special(self, path, kind, mode, device=(0, 0), **fields):
        letter = {CHARACTER: b"c", BLOCK: b"b"}.get(kind, b"p")
        numbers = b" %d %d" % device if letter != b"p" else b""
        self.commands.append(b"mknod %s %s%s" % (self.enter(path), letter, numbers))
        self.leave()
        # debugfs makes no sockets; a fifo differs from one in its mode alone. In the directory it is told as a fifo.
        self.fields(path, kind | mode, **fields)

    def link(self, old, new, links):
        self.commands.append(b"ln %s %s" % (self.quoted(old), self.quoted(new)))
        # debugfs does not count links.
        self.commands.append(b"sif %s links_count %d" % (self.quoted(old), links))
        self.commands.append(b"sif %s ctime @%d" % (self.quoted(old), EPOCH))

    def attribute(self, path, name, value):
        self.commands.append(b'ea_set -f "%s" %s %s' % (self.host_file(value), self.quoted(path), name.encode()))
        self.commands.append(b"sif %s ctime @%d" % (self.quoted(path), EPOCH))

    def write(self, image, offset, size, environment):
        run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", "-N", "1024", "-L", "writable",
             "-U", "4155a1e2-0000-4000-8000-000000000002", "-O", "^has_journal,metadata_csum,64bit,dir_index,extent",
             "-E", f"hash_seed=4155a1e3-0000-4000-8000-000000000002,lazy_itable_init=0,nodiscard,offset={offset}",
             image, f"{size // 1024}k"], environment)
        script = os.path.join(self.directory, "debugfs.script")
        with open(script, "wb") as file:
            file.write(b"\n".join(self.commands) + b"\n")
        where = f"{image}?offset={offset}"
        done = subprocess.run(["debugfs", "-w", "-f", script, where], env=environment, capture_output=True, check=False)
        # debugfs ends well whatever happened; what it says on stderr, beside its version, is trouble.
        told = [line for line in done.stderr.decode(errors="replace").splitlines() if not line.startswith("debugfs 1.")]
        if done.returncode or told:
            sys.exit("tiny-image: debugfs: " + "\n".join(told[:5]))
        # Makes hash trees of large directories, and accounts for what debugfs does not. 1: errors were corrected.
        run(["e2fsck", "-fyD", where], environment, good=(0, 1))
        run(["e2fsck", "-fn", where], environment)


def run(command, environment, good=(0,), **options):
    done = subprocess.run(command, env=environment, capture_output=True, check=False, **options)
    if done.returncode not in good:
        sys.exit(f"tiny-image: {' '.join(command)}: {(done.stdout + done.stderr).decode(errors='replace').strip()}")


def acl(entries):
    """A POSIX ACL as setxattr(2) takes it (linux/posix_acl_xattr.h): version 2, then tag, permissions, id of each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def root_filesystem(ext):
    """What the root holds: a little of everything that an image may hold."""
    for path in ("bin", "sbin", "lib"):
        ext.symlink(path, f"usr/{path}")
    ext.fields("/", DIRECTORY | 0o755)
    ext.fields("lost+found", DIRECTORY | 0o700)
    tree = """boot boot/firmware dev etc etc/cloud etc/cloud/cloud.cfg.d etc/default etc/systemd etc/systemd/system
        etc/systemd/system/multi-user.target.wants etc/systemd/system/timers.target.wants home mnt proc root run srv sys usr
        usr/bin usr/lib usr/lib/systemd usr/lib/systemd/system usr/sbin usr/share usr/share/many usr/share/odd usr/local
        usr/local/bin usr/local/lib var var/cache var/lib var/lib/cloud var/log"""
    for path in tree.split():
        ext.directory_at(path, nanoseconds=NANOSECONDS)
    ext.directory_at("tmp", 0o1777)
    ext.directory_at("home/pi", 0o750, owner=(1000, 1000))
    ext.directory_at("var/mail", 0o2775, owner=(0, 8))

    ext.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nmail:x:8:8:mail:/var/mail:/usr/sbin/nologin\npi:x:1000:1000::/home/pi:/bin/sh\n")
    ext.file("etc/group", "root:x:0:\nmail:x:8:\nshadow:x:42:\npi:x:1000:\n")
    ext.file("etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640, owner=(0, 42))
    ext.file("etc/fstab", "LABEL=writable\t/\text4\tdefaults\t0\t1\nLABEL=system-boot\t/boot/firmware\tvfat\tdefaults\t0\t1\n")
    ext.file("etc/hostname", "tiny\n", nanoseconds=NANOSECONDS)
    ext.file("etc/os-release", 'ID=tiny\nNAME="Tiny"\nVERSION_ID="1"\n')
    ext.file("etc/motd", "")
    ext.file("etc/overlayroot.conf", 'overlayroot=""\n')
    ext.file("etc/cloud/cloud.cfg", "datasource_list: [NoCloud, None]\n")
    units = "usr/lib/systemd/system"
    ext.file(f"{units}/ssh.service", unit("Secure shell", "multi-user.target"))
    ext.file(f"{units}/noise.service", unit("Noise", "multi-user.target"))
    ext.file(f"{units}/getty@.service", unit("Login on %I", "getty.target"))
    ext.file(f"{units}/apt-daily.timer", "[Unit]\nDescription=Daily\n[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    ext.file(f"{units}/multi-user.target", "[Unit]\nDescription=Multi-User System\n")
    ext.symlink("etc/systemd/system/multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service")
    ext.symlink("etc/systemd/system/timers.target.wants/apt-daily.timer", "/usr/lib/systemd/system/apt-daily.timer")

    ext.file("usr/bin/sh", noise("sh", 120_000), 0o755)
    ext.file("usr/bin/ping", noise("ping", 60_000), 0o755)
    # cap_net_raw=ep in the form of linux/capability.h, revision 2.
    ext.attribute("usr/bin/ping", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    ext.file("usr/bin/su", noise("su", 60_000), 0o4755)
    ext.file("usr/bin/noise-1", noise("noise-1", 50_000), 0o755)
    ext.link("usr/bin/noise-1", "usr/bin/noise-2", 2)
    ext.link("usr/bin/noise-1", "usr/share/odd/noise-3", 3)
    ext.file("usr/lib/large", noise("large", 2 * MIB + 3))
    ext.file("usr/lib/text", "All that is gold does not glitter\n" * 40_000)
    ext.sparse_file("var/lib/sparse", 5 * MIB + 17, [(0, noise("a", 4096)), (2 * MIB, noise("b", 70_000))])
    ext.sparse_file("var/lib/hole", 3 * MIB, [])
    ext.file("var/log/mail.log", "", 0o640, owner=(100_000, 70_000))

    for number in range(300):
        name = f"usr/share/many/a-name-that-is-long-enough-to-fill-directory-blocks-{number:04}"
        ext.file(name, noise(str(number), number * 7), mtime=EPOCH - number, nanoseconds=number * 1_000_003)
    odd = "usr/share/odd"
    ext.file(f"{odd}/with space and 'quotes'", "a\n")
    ext.file(os.fsencode(odd) + b"/not-utf8-\xff\xfe", "b\n")
    ext.file(f"{odd}/ünïcödé-雪", "c\n")
    ext.file(f"{odd}/{'n' * 255}", "d\n")
    ext.symlink(f"{odd}/symlink-59", "/" + "s" * 58)
    ext.symlink(f"{odd}/symlink-60", "/" + "s" * 59)
    ext.symlink(f"{odd}/symlink-61", "/" + "s" * 60)
    ext.symlink(f"{odd}/symlink-long", "/".join(["long"] * 180))
    ext.symlink(f"{odd}/symlink-not-utf8", b"nowhere-\xff")
    ext.special(f"{odd}/null", CHARACTER, 0o666, (1, 3))
    ext.special(f"{odd}/large-numbers", BLOCK, 0o660, (259, 1000), owner=(0, 6))
    ext.special(f"{odd}/fifo", FIFO, 0o600)
    ext.file(f"{odd}/attributes", "e\n")
    ext.attribute(f"{odd}/attributes", "user.colour", b"mithril")
    ext.attribute(f"{odd}/attributes", "user.binary", bytes(range(256)))
    ext.attribute(f"{odd}/attributes", "user.empty", b"")
    ext.attribute(f"{odd}/attributes", "trusted.note", b"for root alone")
    # Tags of linux/posix_acl.h: 1 owner, 2 user, 4 group, 16 mask, 32 others.
    rules = [(1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    ext.file(f"{odd}/acl", "f\n")
    ext.attribute(f"{odd}/acl", "system.posix_acl_access", acl(rules))
    ext.file(f"{odd}/before-1970", "g\n", mtime=-86_400)
    ext.file(f"{odd}/after-2038", "h\n", mtime=4_000_000_000)
    # Made last: the time of a directory changes with what is put into it.
    for path in tree.split():
        ext.fields(path, DIRECTORY | 0o755, nanoseconds=NANOSECONDS)
    ext.fields("/", DIRECTORY | 0o755, nanoseconds=7)


def boot_files(directory):
    """The boot partition: short, long and mixed names, an empty file, a directory."""
    files = {
        "config.txt": "[all]\nkernel=vmlinuz\ncmdline=cmdline.txt\ninitramfs initrd.img followkernel\n\n[pi4]\narm_boost=1\n\n[all]\n",
        "cmdline.txt": "console=serial0,115200 console=tty1 root=LABEL=writable rootfstype=ext4 rootwait fixrtc quiet splash\n",
        "vmlinuz": noise("vmlinuz", MIB + 5),
        "initrd.img": noise("initrd", 500_000),
        "start4.elf": noise("start4", 300_000),
        "fixup4.dat": noise("fixup4", 7_000),
        "bcm2711-rpi-4-b.dtb": noise("dtb4", 50_000),
        "bcm2712-rpi-5-b.dtb": noise("dtb5", 70_000),
        "user-data": "#cloud-config\n{}\n",
        "meta-data": "instance-id: tiny\n",
        "network-config": "",
        "overlays/README": "overlays\n",
        "overlays/disable-bt.dtbo": noise("bt", 900),
        "overlays/A long Name with Capitals.txt": "x\n",
    }
    for path, content in files.items():
        target = os.path.join(directory, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.utime(target, (EPOCH, EPOCH))
    os.utime(os.path.join(directory, "overlays"), (EPOCH, EPOCH))
    return sorted(os.listdir(directory))


def make(image, fat=32):
    """Writes the raw image, sparse."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "E2FSPROGS_FAKE_TIME": str(EPOCH), "E2FSCK_TIME": str(EPOCH), "TZ": "UTC",
                   "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1", "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    boot_size = BOOT_SIZES[fat]
    root_start = BOOT_START + boot_size
    with open(image, "wb") as file:
        file.truncate(root_start + ROOT_SIZE)
    table = (f"label: dos\nlabel-id: 0x7a1e0001\nstart={BOOT_START // 512}, size={boot_size // 512}, type=c, bootable\n"
             f"start={root_start // 512}, size={ROOT_SIZE // 512}, type=83\n")
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image], environment, input=table.encode())
    with tempfile.TemporaryDirectory(prefix="aule-tiny-") as directory:
        boot = os.path.join(directory, "boot")
        names = boot_files(boot)
        partition = os.path.join(directory, "fat")
        with open(partition, "wb") as file:
            file.truncate(boot_size)
        run(["mkfs.vfat", "--invariant", "-F", str(fat), "-s", "1", "-n", "system-boot", "-i", "7a1e0002",
             "-h", str(BOOT_START // 512), partition], environment)
        run(["mcopy", "-s", "-m", "-i", partition, *names, "::"], environment, cwd=boot)
        run(["dd", f"if={partition}", f"of={image}", "bs=1M", f"seek={BOOT_START // MIB}", "conv=notrunc,sparse"], environment)
        ext = Ext(directory)
        root_filesystem(ext)
        ext.write(image, root_start, ROOT_SIZE, environment)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(MIB):
            digest.update(piece)
    return digest.hexdigest()


def compress(image, target):
    """Several blocks, as Ubuntu's images have them."""
    with open(target, "wb") as file:
        subprocess.run(["xz", "-0", "-T1", "--block-size=8MiB", "-c", image], stdout=file, check=True)


def write_checksums(target):
    with open(os.path.join(os.path.dirname(os.path.abspath(target)), "SHA256SUMS"), "w", encoding="utf-8") as file:
        file.write(f"{sha256(target)} *{os.path.basename(target)}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fat", type=int, choices=sorted(BOOT_SIZES), default=32)
    parser.add_argument("out", metavar="OUT")
    options = parser.parse_args()
    target = os.path.abspath(options.out)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    raw = target.removesuffix(".xz")
    if raw == target:
        make(raw, options.fat)
    else:
        raw += ".part"
        make(raw, options.fat)
        compress(raw, target + ".part")
        os.remove(raw)
        os.replace(target + ".part", target)
    write_checksums(target)


if __name__ == "__main__":
    sys.exit(main())
