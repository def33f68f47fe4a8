"""mmdebstrap, which makes roots of packages with root's rights and an emulator that is registered for the whole machine."""
import contextlib
import hashlib
import os
import subprocess
import sys
import tarfile

MISC = "/proc/sys/fs/binfmt_misc"
NAME = "aule-compare"
# Its lines stand in the order in which packages happened to be unpacked.
UNORDERED = "var/lib/dpkg/triggers/File"
# Executables and shared objects for arm64; F: the emulator is opened now (kernel documentation, binfmt_misc).
FORMAT = (r":%s:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
          r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F")


@contextlib.contextmanager
def emulator():
    """Registers QEMU for arm64 programs, unless the machine has it so, or needs none."""
    if os.uname().machine == "aarch64":
        yield
        return
    if not os.path.exists(os.path.join(MISC, "register")):
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MISC], check=True)
    if any("aarch64" in name or name == NAME for name in os.listdir(MISC)):
        yield
        return
    with open(os.path.join(MISC, "register"), "w", encoding="ascii") as file:
        file.write(FORMAT % NAME)
    try:
        yield
    finally:
        with open(os.path.join(MISC, NAME), "w", encoding="ascii") as file:
            file.write("-1")


def command(suite, components, keyring, include, mirror, tar, architecture="arm64"):
    """The command that makes a tar file of all that is essential, and of `include`."""
    return ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--architectures={architecture}",
            f"--components={','.join(components)}", f"--include={','.join(include)}", f"--keyring={keyring}",
            "--aptopt=Apt::Install-Recommends false", suite, tar, mirror]


def tree(path):
    """Of each name in a tar file what it is: type, mode, owner, group, size, digest or target."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.strip("/").removeprefix("./")
            content = ""
            if member.isfile():
                data = archive.extractfile(member).read()
                if name.endswith(UNORDERED):
                    data = b"".join(sorted(data.splitlines(keepends=True)))
                content = hashlib.sha256(data).hexdigest()
            elif member.issym():
                content = member.linkname
            kind = "hard link" if member.islnk() else member.type.decode()
            found[name if name not in ("", ".") else "."] = (kind, oct(member.mode), member.uid, member.gid, content)
    return found


if __name__ == "__main__":
    sys.exit("this is a module")
