"""What a test script is made of: cases with names, told one a line as they pass, fail or are skipped.

A script registers functions with `@case(NAME)` and ends with `main()`. A case fails by raising; what it raises as
`Failed` is told in its words, anything else with its traceback. Each gets a directory of its own, removed afterwards.
"""
import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

_cases = []


class Failed(Exception):
    """A case did not hold, in words for people."""


class Skipped(Exception):
    """A case cannot be tried here; the reason."""


class Context:
    """What a case has: `directory`, its own; `full`, whether more may be tried."""

    def __init__(self, directory, full):
        self.directory = directory
        self.full = full

    def path(self, *parts):
        return os.path.join(self.directory, *parts)


def case(name):
    def register(function):
        _cases.append((name, function))
        return function

    return register


def check(good, message):
    if not good:
        raise Failed(message)


def same(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: found {found!r}, wanted {wanted!r}")


def run(command, good=(0,), **options):
    """Runs another program; Failed with all it said where it ends otherwise than with one of `good`."""
    options = {"capture_output": True, "text": True, "errors": "surrogateescape", **options}
    try:
        done = subprocess.run(command, check=False, **options)
    except FileNotFoundError as error:
        raise Skipped(f"{command[0]} is not installed") from error
    if good is not None and done.returncode not in good:
        told = "\n".join(str(part).strip() for part in (done.stdout, done.stderr) if part)
        raise Failed(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{told[-3000:]}")
    return done


def new_directory(prefix):
    """A directory that others may read. Of letters and digits, as podman takes the path of an OCI layout for the name of
    the image, where `-_` may not be; Python's own temporary names hold underscores."""
    path = os.path.join(tempfile.gettempdir(), prefix + secrets.token_hex(8))
    os.mkdir(path)
    os.chmod(path, 0o755)
    return path


def remove(directory):
    """Also what has no permissions left."""
    subprocess.run(["chmod", "-R", "u+rwX", directory], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="try more")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("words", metavar="WORD", nargs="*", help="only the cases whose names hold one of these")
    options = parser.parse_args()
    script = os.path.basename(sys.argv[0])
    passed = failed = 0
    for name, function in _cases:
        if options.words and not any(word in name for word in options.words):
            continue
        if options.list:
            print(name)
            continue
        start = time.monotonic()
        directory = tempfile.mkdtemp(prefix=f"aule-{script}-")
        try:
            # Also for other users.
            os.chmod(directory, 0o755)
            told = function(Context(directory, options.full))
            verdict, text = "pass", f": {told}" if told else ""
            passed += 1
        except Skipped as reason:
            verdict, text = "skip", f": {reason}"
        except Failed as failure:
            verdict, text = "FAIL", f": {failure}"
            failed += 1
        except Exception:  # noqa: BLE001 - a test that breaks is one that failed
            verdict, text = "FAIL", ":\n" + traceback.format_exc()
            failed += 1
        finally:
            remove(directory)
        text = text.replace("\n", "\n      ")
        print(f"{verdict}  {script}: {name}{text} ({time.monotonic() - start:.1f} s)", flush=True)
    if not options.list:
        print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)
