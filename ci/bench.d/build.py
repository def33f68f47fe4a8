"""`ci/bench build`: measures `aule build` beside the work that nobody can avoid and the steps of a script that does the same
by hand.

Prints wall time, processor time and peak memory of each, then every limit with what was measured; exit code 1 where a
limit is missed by more than a third. docs/benchmarks.md says what the rows are. `--quick` measures everything once only.

Needs root (loop mount, owners), and in $TMPDIR, else target/bench, free space of about five times the raw image. Tools
that are missing are installed from Debian packages.
"""
import glob
import os
import shlex
import shutil
import subprocess
import sys

import judge
import measure as measuring
import script
from builder import Builder, files_of
from common import CI, directory_for, image, program, raw_size, say
from measure import Failed, Measured, measure

PACKAGES = ["coreutils", "e2fsprogs", "fdisk", "mount", "mtools", "rsync", "tar", "xz-utils", "zstd"]
SPACE = 5


def arguments(commands):
    build = commands.add_parser("build", help="measure `aule build`")
    build.add_argument("--base", metavar="IMG", help="the image, an .img.xz; default: target/base-full/base.img.xz")
    build.add_argument("--quick", action="store_true", help="every row once only")
    build.set_defaults(run=run)


def must_run(build, cached, ran):
    """Sees that a build did what its row is about: which steps came from the cache, which ran."""
    found = {step["name"]: step["cached"] for step in build["steps"]}
    wrong = [name for name in cached if found.get(name) is not True] + [name for name in ran if found.get(name) is not False]
    if wrong:
        raise Failed(f"the build did not do what is measured; steps and whether they were cached: {found}, wrong: {wrong}")


def fastest(runs):
    """The fastest of some runs: what disturbs only adds."""
    return min(runs, key=lambda it: it.wall)


def bench(options, base, aule, directory):
    """Measures everything; the rows and the judged limits."""
    long, short = (1, 1) if options.quick else (2, 3)
    builder = Builder(aule, base, directory)
    quoted = shlex.quote(base)
    say("reading the image into the page cache")
    with open(base, "rb") as file:
        while file.read(1 << 20):
            pass

    # In turn, so that what else the machine does falls on both.
    floors, colds, build = [], [], None
    for number in range(long):
        say(f"floor and cold build, {number + 1} of {long}")
        floors.append(measure(f"xz -T0 -dc {quoted} | sha256sum"))
        builder.forget()
        cold, build = builder.build("netboot", watch_disk=True)
        must_run(build, [], ["base", "files", "config", "output boot", "output nfs-root"])
        colds.append(cold)
    disk = max(it.disk for it in colds)
    outputs_size = sum(file["size"] for file in files_of(build).values())
    packed = builder.blob(next(it["digest"] for it in files_of(build).values() if it.get("name") == "root.tar.zst"))
    packed = shutil.copy(packed, os.path.join(directory, "packed.tar.zst"))

    def nothing():
        it, build = builder.build("netboot")
        must_run(build, [step["name"] for step in build["steps"]], [])
        return it

    def changed(variant, ran):
        builder.change()
        it, build = builder.build(variant)
        must_run(build, ["base", "output boot"], ["files", *ran])
        return it

    say("builds again")
    nothings = [nothing() for _ in range(short)]
    # The variant's first build is not what is measured: the file is changed after it.
    builder.build("layers")
    layers = [changed("layers", []) for _ in range(short)]
    alls = [changed("netboot", ["output nfs-root"]) for _ in range(short)]
    builder.forget()

    say("sha256sum and zstd of the root")
    sums = [measure(["sha256sum", packed]) for _ in range(short)]
    tar = os.path.join(directory, "root.tar")
    script.run(["zstd", "-q", "-dc", "-o", tar, packed])
    zstds = [measure(f"zstd -q -3 -T0 -c {shlex.quote(tar)} > /dev/null") for _ in range(long)]
    for path in (packed, tar):
        os.unlink(path)

    say("the script's steps")
    scripted = os.path.join(directory, "script")
    os.makedirs(scripted)
    steps = []
    for name, it in script.steps(base, scripted):
        say(f"  {name}: {it.wall:.1f} s")
        steps.append((f"script: {name}", it, "1"))
    total = [sum(getattr(it, field) for _, it, _ in steps) for field in ("wall", "cpu")]
    others = sum(it.others * it.wall for _, it, _ in steps) / total[0]
    whole = Measured(*total, max(it.memory for _, it, _ in steps), 0, others, "")

    floor, cold, zstd = fastest(floors), fastest(colds), fastest(zstds)
    rows = [
        ("floor: xz -T0 -dc, sha256sum", floor, str(long)),
        ("floor: zstd -3 -T0 of the root's tar", zstd, str(long)),
        ("aule build, cold", cold, str(long)),
        ("aule build, nothing changed", fastest(nothings), str(short)),
        ("aule build, one file changed, boot and oci", fastest(layers), str(short)),
        ("aule build, one file changed, all outputs", fastest(alls), str(short)),
        ("sha256sum of root.tar.zst", fastest(sums), str(short)),
        *steps,
        ("script: all steps", whole, "1"),
    ]
    times = {
        "floor": floor.wall,
        "zstd": zstd.wall,
        "cold": cold.wall,
        "nothing": fastest(nothings).wall,
        "layers": fastest(layers).wall,
        "all": fastest(alls).wall,
        "sha256sum": fastest(sums).wall,
        "script": total[0],
    }
    return rows, judge.limits(times, builder.memory, disk, raw_size(base), outputs_size)


def prepare(options):
    """The image and the program; installs tools. Raises Failed where something is missing."""
    if os.geteuid() != 0:
        raise Failed("run it as root: the script's steps mount the image and keep the owners of files")
    script.run([os.path.join(CI, "install"), *PACKAGES])
    aule = program()
    return image(options), aule


def clean(directory):
    """Ends what runs, takes mounts and loop devices of this run away, and removes its directory."""
    measuring.stop_running()
    for mounted in glob.glob(os.path.join(glob.escape(directory), "script", "mount")):
        if os.path.ismount(mounted):
            script.run(["umount", mounted])
    shutil.rmtree(directory, ignore_errors=True)


def run(options):
    try:
        base, aule = prepare(options)
        directory = directory_for(base, SPACE)
        try:
            rows, judged = bench(options, base, aule, directory)
        finally:
            clean(directory)
    except (Failed, subprocess.CalledProcessError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 2
    load = sum(it.others * it.wall for _, it, _ in rows[:-1]) / sum(it.wall for _, it, _ in rows[:-1])
    size = f"{os.path.getsize(base) >> 20} MiB, raw {raw_size(base) >> 20} MiB"
    print(f"Image {size}; {os.cpu_count()} processors, of which other programs had {load * 100:.0f} % meanwhile.\n")
    print(judge.measured_table(rows))
    print()
    print(judge.limits_table(judged))
    failed = sum(it.failed for it in judged)
    print(f"\n{len(judged) - failed} passed, {failed} failed")
    return 1 if failed else 0
