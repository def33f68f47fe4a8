#!/usr/bin/env python3
"""Unpacks Debian packages into a directory and writes the dpkg database that dpkg itself would have left.

Usage: unpack.py ROOT PACKAGES [EXCLUDES]

PACKAGES is a file with one .deb path a line, in the order of unpacking; a tab and the word "auto" after the
path marks a package that was installed only as a dependency. EXCLUDES is a file in the format of
dpkg.cfg(5) with path-exclude= and path-include= lines. No maintainer script is run: that is what makes it fast,
and what `configure` makes up for. The database has the form described in dpkg(1), deb-control(5) and the
comments of dpkg's infodb-format.c: status, info/PACKAGE.{list,postinst,...}, triggers.
"""

import fnmatch
import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path


def run_tar_list(deb):
    """Names of all members of a package's data archive, as dpkg's .list files spell them."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        with tarfile.open(fileobj=source.stdout, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            names = [(member.name, member.isdir()) for member in archive]
    if source.returncode != 0:
        raise SystemExit(f"dpkg-deb cannot read {deb}")
    listed = []
    for name, is_directory in names:
        name = name[1:] if name.startswith("./") else "/" + name if name != "." else "/."
        listed.append((name.rstrip("/") or "/.", is_directory))
    return listed


def read_excludes(path):
    """Filters of dpkg.cfg(5) in order: (is an exclude, pattern); the last match of a path decides."""
    filters = []
    for line in Path(path).read_text().splitlines():
        for key, excludes in (("path-exclude=", True), ("path-include=", False)):
            if line.startswith(key):
                filters.append((excludes, line[len(key):].strip()))
    return filters


def is_excluded(path, filters):
    excluded = False
    for excludes, pattern in filters:
        if fnmatch.fnmatchcase(path, pattern):
            excluded = excludes
    return excluded


def unpack_data(deb, root, listed, filters):
    """Extracts a package's files, numeric owners, without what the filters exclude (directories stay, as in dpkg)."""
    tar = ["tar", "-x", "--numeric-owner", "--same-permissions", "--same-owner", "--keep-directory-symlink",
           "--warning=no-timestamp", "-f", "-", "-C", str(root)]
    skip = [path for path, is_directory in listed if not is_directory and is_excluded(path, filters)]
    listing = None
    if skip:
        listing = Path(root).parent / "exclude.list"
        listing.write_text("".join(f".{path}\n" for path in skip), encoding="utf-8", errors="surrogateescape")
        tar += ["--no-wildcards", "--anchored", f"--exclude-from={listing}"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        subprocess.run(tar, stdin=source.stdout, check=True)
    if source.returncode != 0:
        raise SystemExit(f"dpkg-deb cannot unpack {deb}")
    if listing:
        listing.unlink()


def read_control_archive(deb):
    """Members of a package's control archive: name -> (bytes, mode)."""
    members = {}
    with subprocess.Popen(["dpkg-deb", "--ctrl-tarfile", deb], stdout=subprocess.PIPE) as source:
        with tarfile.open(fileobj=source.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    members[member.name.removeprefix("./")] = (archive.extractfile(member).read(), member.mode)
    if source.returncode != 0:
        raise SystemExit(f"dpkg-deb cannot read the control part of {deb}")
    return members


def fields_of(control):
    """Control fields in order, continuation lines kept: [(name, value)]."""
    fields = []
    for line in control.splitlines():
        if line[:1] in (" ", "\t"):
            fields[-1] = (fields[-1][0], fields[-1][1] + "\n" + line)
        elif line:
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
    return fields


def status_stanza(fields, conffiles, root):
    """The paragraph of /var/lib/dpkg/status for an installed package."""
    lines = []
    for name, value in fields:
        lines.append(f"{name}: {value}" if value or name != "Description" else f"{name}:")
        if name == "Package":
            lines.append("Status: install ok installed")
    if conffiles:
        lines.append("Conffiles:")
        for path in conffiles:
            on_disk = root / path.lstrip("/")
            digest = hashlib.md5(on_disk.read_bytes()).hexdigest() if on_disk.is_file() else "newconffile"
            lines.append(f" {path} {digest}")
    return "\n".join(lines) + "\n"


def main():
    root = Path(sys.argv[1]).resolve()
    filters = read_excludes(sys.argv[3]) if len(sys.argv) > 3 else []
    database = root / "var/lib/dpkg"
    stanzas, automatic, file_triggers, named_triggers = [], [], [], {}
    for line in Path(sys.argv[2]).read_text().splitlines():
        deb, _, mark = line.partition("\t")
        listed = run_tar_list(deb)
        unpack_data(deb, root, listed, filters)
        members = read_control_archive(deb)
        fields = fields_of(members.pop("control")[0].decode())
        field = dict(fields)
        info = database / "info"
        info.mkdir(parents=True, exist_ok=True)
        same = field.get("Multi-Arch") == "same"
        stem = f"{field['Package']}:{field['Architecture']}" if same else field["Package"]
        target = info / f"{stem}.list"
        target.write_text("".join(f"{path}\n" for path, _ in listed), encoding="utf-8", errors="surrogateescape")
        for name, (content, mode) in members.items():
            target = info / f"{stem}.{name}"
            target.write_bytes(content)
            target.chmod(mode & 0o755)
        conffiles = [path for path in members.get("conffiles", (b"", 0))[0].decode().splitlines()
                     if path.startswith("/")]
        stanzas.append((field["Package"], status_stanza(fields, conffiles, root)))
        if mark == "auto":
            automatic.append((field["Package"], field["Architecture"]))
        for trigger in members.get("triggers", (b"", 0))[0].decode().splitlines():
            words = trigger.split("#")[0].split()
            if len(words) == 2 and words[0].startswith("interest"):
                suffix = "/noawait" if words[0] == "interest-noawait" else ""
                if words[1].startswith("/"):
                    file_triggers.append(f"{words[1]} {field['Package']}{suffix}\n")
                else:
                    named_triggers.setdefault(words[1], []).append(f"{field['Package']}{suffix}\n")

    stanzas.sort()
    (database / "status").write_text("\n".join(stanza for _, stanza in stanzas))
    (database / "info/format").write_text("1\n")
    for name in ("available", "diversions", "statoverride", "lock", "lock-frontend"):
        (database / name).touch()
    for name in ("alternatives", "parts", "triggers", "updates"):
        (database / name).mkdir(exist_ok=True)
    (database / "triggers/File").write_text("".join(sorted(file_triggers)))
    (database / "triggers/Lock").touch()
    (database / "triggers/Unincorp").touch()
    for name, packages in named_triggers.items():
        (database / "triggers" / name).write_text("".join(sorted(packages)))
    states = root / "var/lib/apt/extended_states"
    states.parent.mkdir(parents=True, exist_ok=True)
    states.write_text("".join(f"Package: {name}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n"
                              for name, architecture in sorted(automatic)))


if __name__ == "__main__":
    main()
