"""Running `aule`: the program, its stores, and what it answers.

`$AULE` is the program, target/release/aule without it. `$AULE_TEST_CACHE` is a directory that keeps images and stores
between runs, for speed; without it they are made anew for each script.
"""
import atexit
import hashlib
import json
import os
import subprocess
import sys

from harness.cases import Failed, Skipped, new_directory, remove, run

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = os.path.dirname(TESTS)
PROGRAM = os.path.abspath(os.environ.get("AULE") or os.path.join(TOP, "target", "release", "aule"))
SMALL = os.path.join(TOP, "target", "base", "base.img.xz")
os.environ["PATH"] += ":/usr/sbin:/sbin"
# Locks and stores of whoever runs the tests are not the tests' business.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("AULE_STORE", "XDG_DATA_HOME")}

if not os.access(PROGRAM, os.X_OK):
    sys.exit(f"there is no {PROGRAM}: build it (cargo build --release), or say with $AULE where it is")

_cache = os.environ.get("AULE_TEST_CACHE")
if _cache:
    os.makedirs(_cache, exist_ok=True)
else:
    _cache = new_directory("aule-tests-")
    atexit.register(remove, _cache)


def cache(*parts):
    return os.path.join(_cache, *parts)


def tiny(fat=32):
    """The tiny image of tests/tiny-image.py, made once."""
    image = cache(f"tiny{fat}", "base.img.xz")
    if not os.path.isfile(image):
        run([os.path.join(TESTS, "tiny-image.py"), "--fat", str(fat), image])
    return image


def small():
    """The small stand-in image of ci/base-image."""
    if not os.path.isfile(SMALL):
        raise Skipped("there is no target/base/base.img.xz; `ci/base-image --small target/base` makes it")
    return SMALL


def command(store, *arguments):
    return [PROGRAM, "--store", store, *arguments]


def aule(store, *arguments, **options):
    """Runs it and gives what it left: returncode, stdout and stderr; never fails by itself."""
    options = {"capture_output": True, "text": True, "errors": "surrogateescape", "env": ENVIRONMENT, **options}
    return subprocess.run(command(store, *arguments), check=False, **options)


def good(store, *arguments, **options):
    done = aule(store, *arguments, **options)
    if done.returncode != 0:
        raise Failed(f"`aule {' '.join(arguments)}` ended with {done.returncode}:\n{str(done.stderr).strip()[-3000:]}")
    return done


def build(store, *arguments, **options):
    """Builds; gives the object of the last line (`--format json`)."""
    return json.loads(good(store, "--format", "json", "build", *arguments, **options).stdout.splitlines()[-1])


def digests(result):
    """Everything in a build's answer that names bytes, by name."""
    named = {}
    for made in result["builds"]:
        named[made["ref"].split("@")[0]] = made["digest"]
        named.update({f"{made['ref'].split('@')[0]} {it['name']}": it["digest"] for it in made["artifacts"]})
    return named


def blob(store, digest):
    return os.path.join(store, "blobs", *digest.split(":"))


def file_of(result, name, build_number=0):
    """The digest of an artifact's file, such as `boot.img`."""
    for artifact in result["builds"][build_number]["artifacts"]:
        for file in artifact.get("files") or ():
            if file.get("name") == name:
                return file["digest"]
    raise Failed(f"the build has no file {name}: {json.dumps(result)[:2000]}")


def leftovers(store):
    """What lies in the store's tmp/."""
    directory = os.path.join(store, "tmp")
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def listing(*places):
    """Everything there is: names, kinds, modes, sizes, times, contents."""
    found = {}
    for place in places:
        for directory, _, names in os.walk(place):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                it = os.lstat(path)
                digest = None
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path] = (it.st_mode, it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino, digest)
    return found


TINY_RECIPE = os.path.join(TESTS, "recipes", "tiny.yaml")


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb" if isinstance(text, bytes) else "w") as file:
        file.write(text)
    return path
