"""Writes down what a program sees in its place, then becomes that program.

witness.py FACTS CHECKOUT PROBE PROGRAM [ARGUMENT]...: it runs with the same umask, environment, user, preloaded
libraries and so on as PROGRAM, for it is the same process a moment earlier. FACTS is the JSON file to write, CHECKOUT
and PROBE are directories to look at.
"""
import json
import locale
import os
import sys
import time


def tree(top):
    """Modes and times of all that is below `top`, by path."""
    modes, times = {}, {}
    for directory, directories, files in os.walk(top):
        directories[:] = sorted(name for name in directories if name != ".git")
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, top)
            modes[relative] = f"{status.st_mode & 0o7777:04o}"
            times[relative] = int(status.st_mtime)
    return dict(sorted(modes.items())), dict(sorted(times.items()))


def main():
    facts_path, checkout, probe, *command = sys.argv[1:]
    umask = os.umask(0)
    os.umask(umask)
    made = facts_path + ".made"
    os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o666))
    made_mode = os.stat(made).st_mode & 0o7777
    os.unlink(made)
    locale.setlocale(locale.LC_ALL, "")
    modes, times = tree(checkout)
    facts = {
        "umask": f"{umask:04o}",
        "mode of a new file": f"{made_mode:04o}",
        "midnight of 1970": time.strftime("%Y-%m-%d %H:%M %z", time.localtime(0)),
        "character map and decimal point": [locale.nl_langinfo(locale.CODESET), locale.localeconv()["decimal_point"]],
        "home": os.path.expanduser("~"),
        "directory": os.getcwd(),
        "host": os.uname().nodename,
        "user": os.getuid(),
        "CPUs": len(os.sched_getaffinity(0)),
        "year": time.gmtime().tm_year,
        # Without sorting: this is the order that the C library gives.
        "order of a directory": os.listdir(probe),
        "modes": modes,
        "times": times,
        "command": command,
        "environment": dict(sorted(os.environ.items())),
    }
    with open(facts_path, "w", encoding="utf-8") as file:
        json.dump(facts, file)
    os.execv(command[0], command)


main()
