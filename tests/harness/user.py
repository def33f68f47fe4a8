"""A build by somebody who is not root, and who has a range of owners: what root's tests compare their own builds with."""
import os
import subprocess

from harness import aule as a
from harness.cases import run

# Who that is, and the range.
USER, RANGE = 65534, "nobody:100000:65536\n"


def as_user(context, store, recipe, *arguments):
    """Runs `aule build` in the case's directory, with a store of the user's own; gives what it left."""
    os.makedirs(store)
    os.chown(store, USER, USER)
    os.chmod(context.directory, 0o777)
    ranges = a.write(context.path("subid"), RANGE)
    os.chmod(ranges, 0o644)
    program = context.path("aule")
    run(["cp", a.PROGRAM, program])
    script = (f"mount --bind {ranges} /etc/subuid && mount --bind {ranges} /etc/subgid && cd {context.directory} && "
              f"exec setpriv --reuid {USER} --regid {USER} --clear-groups -- {program} --store {store} "
              f"--format json build {recipe} {' '.join(arguments)}")
    return subprocess.run(["unshare", "--mount", "sh", "-c", script], check=False, capture_output=True, text=True,
                          env={**a.ENVIRONMENT, "HOME": "/nonexistent"}, timeout=1800)
