"""One build under one setting: a fresh checkout, a clean environment, and the witness before the command."""
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys

import settings

HERE = os.path.dirname(os.path.abspath(__file__))

# A manifest or an index larger than this is not one.
LARGEST_DOCUMENT = 8 << 20


class Failed(Exception):
    """A build, or the look at its result, that failed."""


class Run:
    """What a build gave, and what it saw."""

    def __init__(self, facts, result, listed, digests):
        self.facts, self.result, self.listed, self.digests = facts, result, listed, digests


class Runner:
    """Makes builds of one recipe in a directory of its own."""

    def __init__(self, directory, aule, root, recipe, base):
        """`root` is the checkout that `recipe` (relative to it) lies in; `base` an image, or None for the recipe's."""
        self.directory, self.root, self.recipe = directory, root, recipe
        self.work = os.path.join(directory, "work")
        self.checkout = os.path.join(self.work, "checkout")
        # Copies that any user can read, and that do not change while this runs.
        self.aule = os.path.join(directory, "aule")
        shutil.copyfile(aule, self.aule)
        os.chmod(self.aule, 0o755)
        self.base = base and self.readable(base)
        self.python = sys.executable if self.can_run(sys.executable) else "/usr/bin/python3"
        self.probe = os.path.join(directory, "probe")
        os.mkdir(self.probe)
        for number in range(40):
            with open(os.path.join(self.probe, f"entry-{number}"), "w", encoding="ascii"):
                pass
        self.shim = os.path.join(directory, "readdir.so")
        self.locale = settings.other_locale(os.path.join(directory, "locale"))

    def compile_shim(self):
        """Makes the library that changes the order of directories."""
        source = os.path.join(HERE, "readdir.c")
        command = ["cc", "-O1", "-Wall", "-Wno-deprecated-declarations", "-shared", "-fPIC", "-o", self.shim, source, "-ldl", "-pthread"]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failed(f"cannot compile {source}: {error}; install a C compiler") from error

    def as_other_user(self):
        """The command that runs a command as another user."""
        if os.getuid() == 0:
            return ["setpriv", f"--reuid={settings.NOBODY}", f"--regid={settings.NOBODY}", "--clear-groups"]
        # Without privileges the other user is root, of a namespace.
        return ["unshare", "--user", "--map-root-user"]

    def can_run(self, program):
        """Whether the other user can; through env, for setpriv itself still has the rights of root on the path."""
        command = [*self.as_other_user(), "env", program, "-c", ""]
        return subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0

    def readable(self, path):
        """`path`, or a copy of it that any user can read."""
        command = [*self.as_other_user(), "test", "-r", path]
        if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0:
            return path
        copy = os.path.join(self.directory, os.path.basename(path))
        subprocess.run(["cp", "--reflink=auto", path, copy], check=True)
        os.chmod(copy, 0o644)
        return copy

    def run(self, setting):
        """Builds under `setting`."""
        if not setting.warm:
            self.clear()
        for name in (setting.home, setting.store, "tmp", "other tmp"):
            os.makedirs(os.path.join(self.work, name), exist_ok=True)
        if not setting.warm:
            self.check_out(setting)
        recipe, base, directory = self.recipe, self.base, self.checkout
        if setting.elsewhere:
            recipe, directory = os.path.join(self.checkout, recipe), "/"
            if base:
                base = os.path.join(self.work, "another-name" + os.path.splitext(base)[1])
                os.symlink(self.base, base)
        store = os.path.join(self.work, setting.store)
        command = [self.aule, "build", recipe, "--store", store, "--jobs", str(setting.jobs), "--format", "json"]
        command += ["--base", base] if base else []
        facts, log = os.path.join(self.work, "facts"), os.path.join(self.work, "listed")
        witness = [self.python, "-I", os.path.join(self.directory, "witness.py"), facts, self.checkout, self.probe]
        shutil.copyfile(os.path.join(HERE, "witness.py"), os.path.join(self.directory, "witness.py"))
        if setting.other_user and os.getuid() == 0:
            subprocess.run(["chown", "-hR", f"{settings.NOBODY}:{settings.NOBODY}", self.work], check=True)
        for path in (facts, log):
            if os.path.exists(path):
                os.unlink(path)
        done = subprocess.run(
            [*self.around(setting), *self.preloaded(setting, log), *witness, *command],
            cwd=directory,
            env=self.environment(setting),
            umask=setting.umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-15:]
            raise Failed("\n    ".join([f"the build ended with exit code {done.returncode}", *last]))
        with open(facts, encoding="utf-8") as file:
            seen = json.load(file)
        result = last_line(done.stdout)
        return Run(seen, result, listed_by(log, os.path.basename(self.aule)), digests(result, store))

    def clear(self):
        """Removes what the last build left, also what it made unwritable."""
        if os.path.lexists(self.work):
            subprocess.run(["chmod", "-R", "u+rwX", self.work], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(self.work)
        os.mkdir(self.work)

    def check_out(self, setting):
        """Copies the recipe and what lies around it as `git checkout` would: only content, links and the executable
        bit are kept; other bits follow from the umask, and times are those of the copy."""
        old = os.umask(setting.checkout_umask)
        try:
            os.mkdir(self.checkout)
            # Not all of tests/: tools leave files there that are no part of the checkout.
            tops = {"recipes", "overlays", os.path.dirname(self.recipe) or "recipes"}
            for top in sorted(tops, reverse=setting.checkout_umask != 0o022):
                if os.path.lexists(os.path.join(self.root, top)):
                    os.makedirs(os.path.join(self.checkout, os.path.dirname(top)), exist_ok=True)
                    copy_as_git(os.path.join(self.root, top), os.path.join(self.checkout, top))
        finally:
            os.umask(old)
        if setting.checkout_time is not None:
            for directory, directories, files in os.walk(self.checkout):
                for name in directories + files:
                    times = (setting.checkout_time, setting.checkout_time)
                    os.utime(os.path.join(directory, name), times, follow_symlinks=False)

    def around(self, setting):
        """The commands before the command."""
        words = []
        if setting.hostname:
            words += ["unshare", "--uts"] + ([] if os.getuid() == 0 else ["--user", "--map-root-user"])
            code = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"
            words += [self.python, "-I", "-c", code, setting.hostname]
        if setting.other_user and not (setting.hostname and os.getuid() != 0):
            words += self.as_other_user()
        if setting.one_cpu:
            words += ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
        return words

    def preloaded(self, setting, log):
        """The variables for libraries that stand between the program and the C library, as a command: what switches
        the user must not run with them, for libfaketime's shared memory would be that of the first user."""
        variables, preload = {}, []
        if setting.clock:
            library = settings.libfaketime()
            if library is None:
                raise Failed("cannot fake the clock: install the Debian package faketime")
            preload.append(library)
            # The time that only measures durations goes on, for threads that wait for each other.
            variables |= {"FAKETIME": f"@{setting.clock}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            variables |= {"DONT_FAKE_MONOTONIC": "1"}
        if setting.order:
            preload.append(self.shim)
            variables |= {"READDIR_ORDER": setting.order, "READDIR_LOG": log}
        if preload:
            if is_static(self.aule):
                raise Failed("the program is linked statically: no library can stand between it and the system")
            variables["LD_PRELOAD"] = ":".join(preload)
        return ["env", *(f"{name}={value}" for name, value in variables.items())] if preload else []

    def environment(self, setting):
        """All variables; nothing is inherited but the path to programs."""
        variables = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.path.join(self.work, setting.home),
            "TZ": setting.timezone,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": os.path.join(self.work, "tmp"),
        }
        if setting.locale == "other":
            variables |= self.locale
        if setting.noise:
            variables |= {
                "TMPDIR": os.path.join(self.work, "other tmp"),
                "USER": "somebody",
                "LOGNAME": "somebody",
                "EDITOR": "ed",
                "XDG_CONFIG_HOME": os.path.join(self.work, "other tmp"),
                "XDG_CACHE_HOME": os.path.join(self.work, "other tmp"),
                "XDG_DATA_HOME": os.path.join(self.work, "other tmp"),
                "NO_COLOR": "1",
                "COLUMNS": "40",
                "TERM": "dumb",
            }
        return variables


def is_static(program):
    """Whether a program is an ELF file (of 64 bits, little-endian) that names no dynamic loader."""
    with open(program, "rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
            return False
        offset, (size, count) = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        headers = file.read(size * count)
    # PT_INTERP is 3.
    return all(struct.unpack_from("<I", headers, at)[0] != 3 for at in range(0, len(headers), size))


def copy_as_git(source, target):
    """Copies a file, a symbolic link or a tree."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target, 0o777)
        for name in sorted(os.listdir(source)):
            copy_as_git(os.path.join(source, name), os.path.join(target, name))
    elif stat.S_ISREG(status.st_mode):
        mode = 0o777 if status.st_mode & 0o100 else 0o666
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(source, "rb") as file, open(descriptor, "wb") as copy:
            shutil.copyfileobj(file, copy)


def last_line(stdout):
    """The object that the build prints last."""
    lines = stdout.decode(errors="replace").strip().splitlines()
    try:
        result = json.loads(lines[-1])
        for build in result["builds"]:
            [(step["name"], step["key"], step["cached"]) for step in build["steps"]]
        if not all(build["artifacts"] and build["steps"] for build in result["builds"]) or not result["builds"]:
            raise Failed("the build printed no builds, no artifacts or no steps")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Failed(f"the last line of the build is not the object it should be ({error!r}): {lines[-1:]}") from error
    return result


def listed_by(log, name):
    """How many directories the program itself listed through the shim."""
    if not os.path.exists(log):
        return 0
    with open(log, encoding="utf-8", errors="replace") as file:
        words = [line.rsplit(" ", 1) for line in file]
    return sum(int(count) for program, count in words if program == name)


def digests(result, store):
    """Every digest of a result by what it is the digest of, in the order in which things are made, with every blob
    below it in the store, each of them read and hashed."""
    found = {}
    for build in sorted(result["builds"], key=lambda build: (build["recipe"], build["variant"])):
        variant = build["variant"]
        for step in build["steps"]:
            for field in sorted(step.keys() - {"name", "cached"}):
                found[f"{variant}: step {step['name']}, {field}"] = step[field]
        for artifact in build["artifacts"]:
            label = f"{variant}: artifact {artifact['name']}"
            add_closure(found, store, label, artifact["digest"])
            found[f"{label}, size and type"] = f"{artifact['size']} {artifact['media_type']}"
        add_closure(found, store, f"{variant}: the build", build["digest"])
    return found


def add_closure(found, store, label, digest):
    """Adds a blob, and, where it is a manifest or an index, what that names."""
    found[label] = digest
    algorithm, _, name = digest.partition(":")
    path = os.path.join(store, "blobs", algorithm, name)
    if not os.path.isfile(path):
        raise Failed(f"{label}: the store has no {digest}")
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    actual = hasher.hexdigest()
    if actual != name:
        raise Failed(f"{label}: what the store calls {digest} has the digest sha256:{actual}")
    if os.path.getsize(path) > LARGEST_DOCUMENT:
        return
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except (UnicodeDecodeError, ValueError):
        return
    if not isinstance(document, dict) or "schemaVersion" not in document:
        return
    below = [("config", document["config"])] if "config" in document else []
    for part in ("manifests", "layers"):
        below += [(f"{part}[{number}]", each) for number, each in enumerate(document.get(part, []))]
    for part, descriptor in below:
        add_closure(found, store, f"{label}, {part}", descriptor["digest"])
