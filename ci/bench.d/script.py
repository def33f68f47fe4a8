"""The steps that a script of decompressing, mounting and copying takes for the same outputs, each measured.

The raw image is decoded with one thread, the root copied out of a loop mount (where there is no loop device, by debugfs)
and the boot files by mtools, the root copied back into a second image, and the root packed as tar.zst.
"""
import json
import os
import shlex
import subprocess

from measure import Failed, measure

# Types of an MBR partition.
FAT_TYPES = ("c", "b", "e", "6")
LINUX_TYPE = "83"


def run(words):
    """A short program that is not measured; its stdout."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Mount:
    """A partition of a raw image, mounted by a loop device while inside; None inside where there is no loop device."""

    def __init__(self, image, partition, point, options):
        self.image, self.partition, self.point, self.options = image, partition, point, options
        self.device = None
        self.mounted = False

    def __enter__(self):
        start, size = (str(self.partition[key] * 512) for key in ("start", "size"))
        access = ["--read-only"] if "ro" in self.options.split(",") else []
        try:
            words = ["losetup", "--find", "--show", *access, "--offset", start, "--sizelimit", size, self.image]
            self.device = run(words).strip()
            os.makedirs(self.point, exist_ok=True)
            run(["mount", "-o", self.options, self.device, self.point])
            self.mounted = True
        except Failed:
            self.__exit__()
            return None
        return self.point

    def __exit__(self, *_):
        if self.mounted:
            run(["umount", self.point])
            self.mounted = False
        if self.device:
            run(["losetup", "--detach", self.device])
            self.device = None


def partitions(raw):
    """The boot and the root partition of a raw image."""
    found = json.loads(run(["sfdisk", "--json", raw]))["partitiontable"]["partitions"]
    boot = next(it for it in found if it["type"] in FAT_TYPES)
    root = [it for it in found if it["type"] == LINUX_TYPE][-1]
    return boot, root


def steps(image, directory):
    """Makes the outputs of `image` in `directory` and yields name and measured values, step after step."""
    raw, copy, root = (os.path.join(directory, name) for name in ("raw.img", "sd.img", "root"))
    boot_files, point, packed = (os.path.join(directory, name) for name in ("boot", "mount", "root.tar.zst"))
    for made in (root, boot_files):
        os.makedirs(made)
    yield "xz -dc, one thread", measure(f"xz -T1 -dc {shlex.quote(image)} > {shlex.quote(raw)}")
    boot_partition, root_partition = partitions(raw)

    with Mount(raw, root_partition, point, "ro,noload") as mounted:
        if mounted:
            yield "rsync of the root out of a loop mount", measure(
                ["rsync", "-aHAX", "--numeric-ids", mounted + "/", root + "/"]
            )
    if not mounted:
        where = f"{raw}?offset={root_partition['start'] * 512}"
        yield "debugfs rdump of the root (no loop device)", measure(["debugfs", "-R", f'rdump / "{root}"', where])
    yield "mcopy of the boot files", measure(
        ["mcopy", "-s", "-p", "-m", "-n", "-i", f"{raw}@@{boot_partition['start'] * 512}", "::*", boot_files]
    )
    yield "cp of the image", measure(["cp", "--reflink=never", raw, copy])
    with Mount(copy, root_partition, point, "rw") as mounted:
        # What is the same already is looked at but not copied again: in the script's favour.
        if mounted:
            yield "rsync of the root into the copy", measure(
                ["rsync", "-aHAX", "--numeric-ids", root + "/", mounted + "/"]
            )
    tar = f"tar -C {shlex.quote(root)} --numeric-owner --xattrs --xattrs-include='*' --acls --sparse -cf - ."
    yield "tar, zstd -3 -T0, sha256sum", measure(f"{tar} | zstd -q -3 -T0 | tee {shlex.quote(packed)} | sha256sum")
