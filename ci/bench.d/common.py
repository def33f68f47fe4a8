"""What the commands of ci/bench share: the program, the image, tools, and a directory for what is made."""
import os
import shutil
import subprocess
import sys
import tempfile

from measure import Failed
from script import run

CI = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(CI)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def program():
    """The `aule` that is measured. Raises Failed where there is none."""
    aule = os.path.abspath(os.environ.get("AULE") or os.path.join(ROOT, "target", "release", "aule"))
    if not os.access(aule, os.X_OK):
        raise Failed(f"there is no program {aule}; build it with `cargo build --release -p aule`, or set AULE")
    return aule


def image(options):
    """The image that is built from; makes the full stand-in where none is named and there is none."""
    base = options.base
    if base is None:
        full = os.path.join(ROOT, "target", "base-full")
        base = os.path.join(full, "base.img.xz")
        if not os.path.isfile(base):
            say("making the full stand-in image")
            subprocess.run([os.path.join(CI, "base-image"), "--full", full], stdout=sys.stderr, check=True)
    base = os.path.abspath(base)
    if not os.path.isfile(base):
        raise Failed(f"there is no image {base}")
    return base


def raw_size(image):
    """Size of an image when decoded, in bytes (`xz --robot --list`: column 5 of the totals)."""
    totals = [line.split("\t") for line in run(["xz", "--robot", "--list", image]).splitlines()]
    return next(int(columns[4]) for columns in totals if columns[0] == "totals")


def directory_for(base, space, more=0):
    """A new directory; raises Failed where there is not `space` times the raw image, and so many bytes more, free."""
    above = os.environ.get("TMPDIR") or os.path.join(ROOT, "target", "bench")
    os.makedirs(above, exist_ok=True)
    wanted, free = raw_size(base) * space + more, shutil.disk_usage(above).free
    if free < wanted:
        raise Failed(f"{above} has {free >> 20} MiB free, {wanted >> 20} are needed; set TMPDIR to where there are more")
    return tempfile.mkdtemp(prefix="aule-bench-", dir=above)
