"""The axes: what is varied from one build to the other, and how it shows that it was."""
import dataclasses
import glob
import os
import subprocess

NOBODY = 65534


@dataclasses.dataclass(frozen=True)
class Setting:
    """Everything around a build that must not matter; the defaults are those of the reference."""

    umask: int = 0o022
    timezone: str = "UTC0"
    locale: str = "C.UTF-8"
    home: str = "home"
    store: str = "store"
    elsewhere: bool = False  # run in another directory, with other paths to the recipe and the image
    hostname: str | None = None
    other_user: bool = False
    noise: bool = False  # more and other variables in the environment
    jobs: int = 2
    one_cpu: bool = False
    clock: str | None = None
    order: str | None = None
    checkout_umask: int = 0o022
    checkout_time: int | None = None
    warm: bool = False  # the store of the build before


class Axis:
    """A variation of the setting, and the control: the facts (see witness.py) in which it must show."""

    def __init__(self, name, facts, **changes):
        self.name, self.facts, self.setting = name, facts, Setting(**changes)

    def control(self, reference, run):
        """What a program saw here and in the reference, by fact; and those facts that did not vary."""
        seen = {fact: (see(fact, reference), see(fact, run)) for fact in self.facts}
        return seen, [fact for fact, (before, now) in seen.items() if before == now]


def see(fact, run):
    """The value of a fact of a run, also of those that the witness does not know."""
    facts, command = run.facts, run.facts["command"]
    if fact == "jobs":
        return command[command.index("--jobs") + 1]
    if fact == "store":
        return command[command.index("--store") + 1]
    if fact == "recipe":
        return command[2]
    if fact == "image":
        return command[command.index("--base") + 1] if "--base" in command else None
    if fact == "directories listed in another order":
        return run.listed > 0
    if fact == "cached steps":
        return any(step["cached"] for build in run.result["builds"] for step in build["steps"])
    return facts[fact]


def axes(with_base):
    """All axes. Those that are warm come right after the reference, whose store they use."""
    clock = ["year"]
    order = ["order of a directory", "directories listed in another order"]
    elsewhere = ["directory", "recipe"] + (["image"] if with_base else [])
    found = [
        Axis("again", []),
        Axis("warm", ["cached steps"], warm=True),
        Axis("umask", ["umask", "mode of a new file"], umask=0o077),
        Axis("timezone", ["midnight of 1970"], timezone="XYZ-13:45"),
        Axis("locale", ["character map and decimal point"], locale="other"),
        Axis("home", ["home"], home="a home/of another user"),
        Axis("store", ["store"], store="another place/for a store"),
        Axis("directory", elsewhere, elsewhere=True),
        Axis("hostname", ["host"], hostname="another-host"),
        Axis("user", ["user"], other_user=True),
        Axis("environment", ["environment"], noise=True),
        Axis("jobs-1", ["jobs"], jobs=1),
        Axis("jobs-5", ["jobs"], jobs=5),
        Axis("cpus", ["CPUs"], one_cpu=True),
        Axis("clock-past", clock, clock="1999-12-31 23:59:58"),
        Axis("clock-future", clock, clock="2037-02-03 04:05:06"),
        Axis("readdir-reverse", order, order="reverse"),
        Axis("readdir-shuffle", order, order="shuffle"),
        Axis("checkout", ["modes", "times"], checkout_umask=0o077, checkout_time=315_532_800),
    ]
    together, facts = {}, []
    for axis in found:
        if axis.name not in ("warm", "jobs-1", "clock-past", "readdir-reverse"):
            changes = dataclasses.asdict(axis.setting)
            default = dataclasses.asdict(Setting())
            together |= {name: value for name, value in changes.items() if value != default[name]}
            facts += [fact for fact in axis.facts if fact not in facts]
    return found + [Axis("everything", facts, **together)]


# Those that find most: the order of work, of directories, the time, and the bits that git does not keep.
QUICK = ["jobs-5", "readdir-shuffle", "clock-future", "checkout"]


def libfaketime():
    """The library that fakes the clock, from the Debian package faketime; None where it is not there."""
    places = ["/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1"]
    found = sorted(path for place in places for path in glob.glob(place))
    return found[0] if found else None


def other_locale(directory):
    """A locale that is not the reference's, as variables: Turkish, made from its sources where they are installed, for
    its letters and its decimal comma; else the plain C locale, which has another character map."""
    made = os.path.join(directory, "tr_TR.UTF-8")
    os.makedirs(directory, exist_ok=True)
    try:
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", made]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        pass
    if os.path.isdir(made):
        return {"LOCPATH": directory, "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}
    return {"LANG": "C", "LC_ALL": "C"}
