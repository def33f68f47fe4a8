"""`ci/bench serve`: measures `aule serve` beside stock servers, and lets many nodes boot from it.

Prints one table: every row with its peer, the ratio and its floor, then what is judged of the load test; exit code 1
where a floor is missed by more than a third, or where a row could not be measured. docs/benchmarks.md says what the rows
are. `--quick` measures everything once and with fewer clients; `--only ROW…` leaves the other rows out.

Needs root (owners of files, namespaces), the program target/release/aule-load or $AULE_LOAD, and in $TMPDIR, else
target/bench, free space of about four times the raw image and 3 GiB. Tools and peers that are missing are installed from
Debian packages, and no service is started by that; everything runs in namespaces that end with it.
"""
import argparse
import contextlib
import dataclasses
import glob
import json
import os
import resource
import shutil
import subprocess
import sys

import contents
import judge
import load
import rows
import served
from builder import Builder
from common import CI, ROOT, directory_for, image, program, raw_size, say
from measure import Failed, busy_seconds
from script import run as short
from stock import Failed as ServerFailed
from stock import own_run

PACKAGES = [
    "coreutils", "iproute2", "tar", "util-linux", "xz-utils", "zstd",
    "curl", "skopeo",
    "dnsmasq-base", "docker-registry", "nfs-ganesha", "nfs-ganesha-vfs", "nginx-light", "rpcbind", "tftpd-hpa",
    "libpcre2-8-0", "libwrap0",  # of atftpd, which is unpacked and not installed
]
RECIPE = "ci/bench.d/serve.yaml"
SPACE = 4
# What the recipe adds to the image, in each of the forms that lie on the disk.
MORE_SPACE = 3 << 30
FILES = 65_536
POLICY = "/usr/sbin/policy-rc.d"
NAMES = [*rows.ROWS, *load.LOADS]


def arguments(commands):
    serve = commands.add_parser("serve", help="measure `aule serve`")
    serve.add_argument("--base", metavar="IMG", help="the image, an .img.xz; default: target/base-full/base.img.xz")
    serve.add_argument("--quick", action="store_true", help="everything once only, and with fewer clients")
    serve.add_argument("--only", nargs="+", metavar="ROW", choices=NAMES, help=f"only these rows: {', '.join(NAMES)}")
    # Of the run within the namespaces: where it finds what was prepared.
    serve.add_argument("--inside", metavar="FILE", help=argparse.SUPPRESS)
    serve.set_defaults(run=run)


@contextlib.contextmanager
def no_services():
    """While inside, a package that is installed starts no service (invoke-rc.d(8)). What an operator has there stays."""
    try:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        os.unlink(POLICY)


def install():
    """Installs tools and peers; gives the path of atftpd, which as a package cannot stand beside tftpd-hpa."""
    with no_services():
        short([os.path.join(CI, "install"), *PACKAGES])
    directory = os.path.join(ROOT, "target", "bench-tools", "atftpd")
    program_file = os.path.join(directory, "usr", "sbin", "atftpd")
    if not os.access(program_file, os.X_OK):
        os.makedirs(directory, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "atftpd"], cwd=directory, check=True, stderr=subprocess.DEVNULL)
        package = glob.glob(os.path.join(glob.escape(directory), "atftpd_*.deb"))[0]
        short(["dpkg-deb", "-x", package, directory])
    return program_file


def prepare(options, aule, base, directory, atftpd):
    """Builds what is served, and unpacks it for the peers."""
    loader = os.path.abspath(os.environ.get("AULE_LOAD") or os.path.join(ROOT, "target", "release", "aule-load"))
    if not os.access(loader, os.X_OK):
        raise Failed(f"there is no program {loader}; build it with `cargo build --release -p aule-load`, or set AULE_LOAD")
    builder = Builder(aule, base, directory, RECIPE)
    say("making the files that are served")
    boot_file = contents.make(os.path.join(builder.tree, "ci", "bench.d", "made"))
    say("building")
    _, build = builder.build("netboot")
    _, small = builder.build("small-boot")
    artifacts = {it["name"]: it for it in build["artifacts"]}
    blob = builder.blob(next(it["digest"] for it in artifacts["nfs-root"]["files"] if it["name"] == "root.tar.zst"))
    root = os.path.join(directory, "root")
    os.makedirs(root)
    say("unpacking the root for nfs-ganesha")
    short(["tar", "--zstd", "-x", "--numeric-owner", "--same-permissions", "--same-owner", "--xattrs",
           "--xattrs-include=*", "--acls", "-f", blob, "-C", root])
    return rows.Setting(
        aule=aule, load=loader, atftpd=atftpd, work=directory, store=builder.store, reference=build["ref"].split("@")[0],
        small_reference=small["ref"].split("@")[0], boot_file=boot_file, root=root, root_blob=blob, quick=options.quick)


def outside(options):
    """Prepares everything and runs the rest in namespaces, which end with it."""
    if os.geteuid() != 0:
        raise Failed("run it as root: it unpacks files of other owners and makes namespaces")
    aule, base = program(), image(options)
    atftpd = install()
    directory = directory_for(base, SPACE, MORE_SPACE)
    try:
        setting = prepare(options, aule, base, directory, atftpd)
        inside_file = os.path.join(directory, "setting.json")
        told = {"setting": dataclasses.asdict(setting), "only": options.only or NAMES,
                "image": f"{os.path.getsize(base) >> 20} MiB, raw {raw_size(base) >> 20} MiB"}
        with open(inside_file, "w", encoding="utf-8") as file:
            json.dump(told, file)
        words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                 os.path.join(CI, "bench"), "serve", "--inside", inside_file]
        with subprocess.Popen(words) as child:
            try:
                return child.wait()
            finally:
                child.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def inside(file):
    """Measures; this process is the first of its process namespace, so that everything ends with it."""
    with open(file, encoding="utf-8") as opened:
        told = json.load(opened)
    setting = rows.Setting(**told["setting"])
    # Two sockets and more for each node, on both sides.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = FILES if limit == resource.RLIM_INFINITY else min(FILES, limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limit))
    served.namespace()
    own_run()
    setting.out = os.path.join(setting.work, "out")
    os.makedirs(setting.out)
    # What is pulled goes into memory: the disk is not what is measured.
    short(["mount", "-t", "tmpfs", "tmpfs", setting.out])
    busy = busy_seconds()
    measured, judged, broken = [], [], []
    begin = os.times()
    for name in told["only"]:
        say(name)
        try:
            if name in rows.ROWS:
                found = rows.ROWS[name](setting)
                measured += found
                for it in found:
                    theirs = f"{it.peer_name} {it.peer:,.1f} {it.note}"
                    say(f"  {it.name}: {it.ours:,.1f} {it.unit}, cold {it.cold:,.1f}; {theirs}")
            else:
                judged += load.LOADS[name](setting)
        except (Failed, ServerFailed, subprocess.SubprocessError, OSError, KeyError, ValueError) as failure:
            say(f"  {name} could not be measured: {failure}")
            broken.append((name, str(failure)))
    end = os.times()
    wall = end.elapsed - begin.elapsed
    own = sum(end[:4]) - sum(begin[:4])
    others = max(0.0, busy_seconds() - busy - own) / (wall * os.cpu_count())
    load_of_others = f"of which other programs had {others * 100:.0f} % meanwhile"
    print(f"Image {told['image']}; {os.cpu_count()} processors, {load_of_others}.\n")
    table, failed = judge.served_table(measured, judged, broken)
    print(table)
    print(f"\n{len(measured) + len(judged) + len(broken) - failed} passed, {failed} failed")
    return 1 if failed else 0


def run(options):
    try:
        return inside(options.inside) if options.inside else outside(options)
    except (Failed, ServerFailed, subprocess.CalledProcessError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 2
