"""The files that ci/bench serve adds to what it serves; the same bytes at every run.

Boot files are noise, as what is compressed already looks like; what lies in the root compresses to about half.
"""
import hashlib
import os

MIB = 1 << 20
# Below the boot partition, and below the root.
BOOT_FILE, BOOT_FILE_SIZE = "bench-initrd.img", 40 * 1_000_000
LARGE, LARGE_SIZE = "srv/bench/large", 192 * MIB
SMALL, SMALL_FILES = "srv/bench/small", 10_000
# Kernel and initrd of the variant `small-boot`.
KERNEL_SIZE, INITRD_SIZE = 1_200_000, 800_000


def noise(name, length):
    """Bytes that do not compress, always the same for a name."""
    return hashlib.shake_128(name.encode()).digest(length)


def text(name, length):
    """Hexadecimal digits: half of it is information."""
    return noise(name, (length + 1) // 2).hex().encode()[:length]


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def make(directory):
    """Fills `made/` beside the recipe; gives the path of the large boot file."""
    overlay = os.path.join(directory, "overlay")
    boot_file = os.path.join(overlay, "boot", "firmware", BOOT_FILE)
    write(boot_file, noise("boot file", BOOT_FILE_SIZE))
    write(os.path.join(overlay, LARGE), text("large", LARGE_SIZE))
    # From 100 bytes to 8 KB, as unit files, scripts and Python modules have.
    sizes = noise("sizes", 2 * SMALL_FILES)
    for number in range(SMALL_FILES):
        size = 100 + int.from_bytes(sizes[2 * number:2 * number + 2], "big") % 8000
        write(os.path.join(overlay, SMALL, f"file-{number:05}"), text(f"small {number}", size))
    write(os.path.join(directory, "vmlinuz"), noise("kernel", KERNEL_SIZE))
    write(os.path.join(directory, "initrd.img"), noise("initrd", INITRD_SIZE))
    return boot_file
