"""`ci/bench packages`: measures how packages are chosen and installed, beside apt, mmdebstrap and dpkg under emulation.

All packages come through a cache on this machine, which is filled before the clock starts. Prints wall time, processor time and
peak memory, then every limit with what was measured; exit code 1 where a limit is missed by more than a third.
docs/benchmarks.md says what the rows are. Needs root (mmdebstrap), a Debian mirror in this machine's apt, and some 4 GB in
$TMPDIR, else target/bench.
"""
import http.server
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

import measure as measuring
import script
from common import CI, ROOT, program, say
from measure import Failed, measure

sys.path[:0] = [os.path.join(CI, "compare.d"), os.path.join(ROOT, "tests")]

import mmdebstrap  # noqa: E402
from apt import Apt, paragraphs  # noqa: E402
from harness.debian import mirror  # noqa: E402

TOOLS = ["arch-test", "mmdebstrap", "qemu-user-static", "uidmap", "zstd"]
KEY = os.path.join(ROOT, "recipes", "keys", "debian-13.asc")
# Shell, Perl and Python scripts, units, triggers, users.
INCLUDE = ["apt", "systemd-sysv", "openssh-server", "ca-certificates", "python3-yaml", "nano"]
LEAF = "tree"
# (what, limit): how many times the other's time it may take.
LIMITS = {
    "resolving 100 packages, cold, of apt-get -s": 1.0,
    "resolving 100 packages, warm, of apt-get -s": 1.0,
    "a base on one processor, of mmdebstrap": 1.0,
    "a base on all processors, of mmdebstrap": 1.0,
    "a foreign base, of the same for this machine's architecture": 3.0,
    "one package more, of `dpkg -i` under emulation": 3.0,
}

PARTS = ["resolving", "bases", "one-more"]


def arguments(commands):
    packages = commands.add_parser("packages", help="measure choosing and installing packages")
    packages.add_argument("--quick", action="store_true", help="every row once only")
    packages.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    packages.set_defaults(run=run)


class Cache:
    """A mirror on this machine that fetches each file of the real one once."""

    def __init__(self, directory, upstream):
        cache = self
        os.makedirs(directory)
        self.lock = threading.Lock()

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *words, **options):
                super().__init__(*words, directory=directory, **options)

            def do_GET(self):
                path = os.path.join(directory, self.path.lstrip("/"))
                if ".." in self.path.split("/"):
                    return self.send_error(404)
                with cache.lock:
                    if not os.path.exists(path):
                        try:
                            with urllib.request.urlopen(upstream + self.path) as answer:
                                data = answer.read()
                        except urllib.error.HTTPError as error:
                            return self.send_error(error.code)
                        os.makedirs(os.path.dirname(path), exist_ok=True)
                        with open(path, "wb") as file:
                            file.write(data)
                return super().do_GET()

            def log_message(self, *_words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def forget_pages():
    """Has the kernel forget what it read, where it may be asked."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    except OSError:
        pass


def installable(apt, names, wanted):
    """The first `wanted` of the names that apt can install together, passing over what does not go with those before."""
    picked, batches = [], [names]
    while batches and len(picked) < wanted:
        batch = batches.pop()
        if len(batch) <= wanted - len(picked) and apt.takes([*picked, *batch]) is not None:
            picked += batch
        elif len(batch) > 1:
            # Halves: to ask apt for each name alone takes many minutes.
            batches += [batch[len(batch) // 2:], batch[:len(batch) // 2]]
    if len(picked) < wanted:
        raise Failed(f"apt can install {len(picked)} of {len(names)} packages together, {wanted} were wanted")
    return picked


def resolving(directory, count):
    """Both answer the same question: cold, without caches of apt's or the kernel's, and warm."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "aule-deb", "--example", "resolve"], cwd=ROOT, check=True)
    resolve = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "release", "examples", "resolve")
    apt = Apt(os.path.join(directory, "apt"), "trixie")
    names = sorted({re.search(r"^Package: (\S+)", it, re.MULTILINE)[1] for it in paragraphs(apt.indices())})
    picked = installable(apt, random.Random(1).sample(names, 400), 100)
    theirs = ["env", f"APT_CONFIG={apt.configuration}", "LC_ALL=C", "apt-get", "-q", "-s", "install", *picked]
    ours = [resolve, "arm64", apt.status, ",".join(apt.indices()), *picked]
    rows = {}
    for what in ("cold", "warm"):
        for name, command in (("apt-get -s", theirs), ("aule", ours)):
            runs = []
            for _ in range(count):
                if what == "cold":
                    for cache in ("pkgcache.bin", "srcpkgcache.bin"):
                        if os.path.exists(os.path.join(apt.directory, cache)):
                            os.unlink(os.path.join(apt.directory, cache))
                    forget_pages()
                runs.append(measure(command))
            rows[f"{name}: 100 packages, {what}"] = min(runs, key=lambda it: it.wall)
        rows[f"resolving 100 packages, {what}, of apt-get -s"] = (f"aule: 100 packages, {what}", f"apt-get -s: 100 packages, {what}")
    return rows


class Bases:
    """Bases of packages and what is built on them."""

    def __init__(self, directory, archive):
        self.directory, self.archive, self.aule = directory, archive, program()
        shutil.copyfile(KEY, os.path.join(directory, "key.asc"))

    def recipe(self, name, architecture="arm64", more=""):
        path = os.path.join(self.directory, f"{name}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"name: {name}\nbase:\n  packages: {{ suite: trixie, key: key.asc, architecture: {architecture}, "
                       f"include: [{', '.join(INCLUDE)}] }}\noutputs: [nfs-root]\n{more}")
        return path

    def build(self, store, recipe, prefix=()):
        return [*prefix, self.aule, "--store", os.path.join(self.directory, store), "build", "--mirror", self.archive, recipe]

    def forget(self, *names):
        for name in names:
            shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
        for name in os.listdir(self.directory):
            if name.endswith((".lock", ".tar")):
                os.unlink(os.path.join(self.directory, name))


def bases(directory, archive, count):
    """Bases by aule and by mmdebstrap, on one processor and on all; and one for this machine's own architecture."""
    own = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    made = Bases(directory, archive)
    foreign, native = made.recipe("foreign"), made.recipe("native", own)
    tar = os.path.join(directory, "theirs.tar")
    theirs = mmdebstrap.command("trixie", ["main"], KEY, INCLUDE, archive, tar)
    one = ["taskset", "--cpu-list", "0"]
    rows = {}
    say("filling the cache")
    for recipe in (foreign, native):
        measure(made.build("warm", recipe))
    made.forget("warm")
    for name, prefix in (("one processor", one), ("all processors", [])):
        ours_runs, theirs_runs = [], []
        for _ in range(count):
            say(f"a base on {name}")
            made.forget("store")
            ours_runs.append(measure(made.build("store", foreign, prefix)))
            made.forget("store")
            theirs_runs.append(measure([*prefix, *theirs]))
        rows[f"aule: base, {name}"] = min(ours_runs, key=lambda it: it.wall)
        rows[f"mmdebstrap: base, {name}"] = min(theirs_runs, key=lambda it: it.wall)
        rows[f"a base on {name}, of mmdebstrap"] = (f"aule: base, {name}", f"mmdebstrap: base, {name}")
    say("the same for this machine's architecture")
    runs = []
    for _ in range(count):
        made.forget("store")
        runs.append(measure(made.build("store", native)))
    rows[f"aule: base, {own}"] = min(runs, key=lambda it: it.wall)
    rows["a foreign base, of the same for this machine's architecture"] = ("aule: base, all processors", f"aule: base, {own}")
    return rows


def leaf(directory, archive, count):
    """One package more on a base that is there, beside dpkg of the same tree under emulation."""
    say("one package more")
    made = Bases(directory, archive)
    foreign = made.recipe("foreign")
    made.forget("store")
    measure(made.build("store", foreign))
    # What is there once a tree has been unpacked and the programs are at hand is the usual case.
    first = made.recipe("foreign", more="packages: { install: [bc] }\n")
    measure(made.build("store", first))
    more = made.recipe("foreign", more=f"packages: {{ install: [{LEAF}] }}\n")
    ours = [measure(made.build("store", more))]
    tree = os.path.join(directory, "tree")
    os.makedirs(tree)
    subprocess.run([made.aule, "--store", os.path.join(directory, "store"), "export", "foreign:default", "--output",
                    os.path.join(directory, "out")], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "--zstd", "-xf", os.path.join(directory, "out", "root.tar.zst"), "-C", tree], check=True)
    with open(os.path.join(directory, "foreign.lock"), encoding="utf-8") as file:
        url = re.search(rf"url: (\S+/{LEAF}_\S+\.deb)", file.read())[1]
    urllib.request.urlretrieve(url.strip('"'), os.path.join(tree, "leaf.deb"))
    theirs = [measure(["chroot", tree, "dpkg", "-i", "/leaf.deb"]) for _ in range(count)]
    return {f"aule: {LEAF} on a base": min(ours, key=lambda it: it.wall),
            f"dpkg -i {LEAF}, emulated": min(theirs, key=lambda it: it.wall),
            "one package more, of `dpkg -i` under emulation": (f"aule: {LEAF} on a base", f"dpkg -i {LEAF}, emulated")}


def show(rows):
    """The table and the limits; how many are missed by more than a third."""
    print(f"{'':44} {'wall':>8} {'processor':>10} {'memory':>9}")
    for name, row in rows.items():
        if not isinstance(row, tuple):
            print(f"{name:44} {row.wall:6.2f} s {row.cpu:8.2f} s {row.memory / (1 << 20):5.0f} MiB")
    missed = 0
    for name, limit in ((name, limit) for name, limit in LIMITS.items() if name in rows):
        ours, theirs = (rows[it].wall for it in rows[name])
        ratio = ours / theirs
        verdict = "good" if ratio <= limit else "near" if ratio <= limit * 4 / 3 else "MISSED"
        missed += verdict == "MISSED"
        print(f"{verdict:7} {ratio:6.2f} times {name} (limit {limit:g})")
    return missed


def run(options):
    if os.geteuid() != 0:
        print("bench: run it as root: mmdebstrap keeps owners", file=sys.stderr)
        return 2
    above = os.environ.get("TMPDIR") or os.path.join(ROOT, "target", "bench")
    os.makedirs(above, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="aule-bench-", dir=above)
    os.chmod(directory, 0o755)
    count = 1 if options.quick else 2
    try:
        script.run([os.path.join(CI, "install"), *TOOLS])
        cache = Cache(os.path.join(directory, "cache"), mirror())
        rows = {}
        if "resolving" in options.only:
            rows.update(resolving(directory, count))
        with mmdebstrap.emulator():
            if "bases" in options.only:
                rows.update(bases(directory, cache.url, count))
            if "one-more" in options.only:
                rows.update(leaf(directory, cache.url, count))
        return 1 if show(rows) else 0
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    finally:
        measuring.stop_running()
        shutil.rmtree(directory, ignore_errors=True)
