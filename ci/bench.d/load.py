"""The load test of ci/bench serve: many nodes that boot from one server, played by aule-load.

One node boots alone first, on the fresh server, and does not count: what it waits for is what the row of each protocol
shows as cold.
"""
import json
import subprocess
from dataclasses import dataclass

import served
from common import say
from rows import MIB
from stock import Failed

# Of each file that a node of a thousand reads: what a kernel pages in at first.
READ_MAX = 128 << 10
MEMORY = (512 << 20) + served.CACHE
SLOWEST = 3.0


@dataclass
class Judged:
    """A value of a load test and what it may be at most."""

    name: str
    what: str
    measured: float
    limit: float
    unit: str


def test(setting, name, nodes, ramp, reference, image, more):
    """Boots the nodes; gives what is judged."""
    words = [setting.load, "boot", "--server", served.ADDRESS, "--tftp", str(served.TFTP), "--portmap", str(served.PORTMAP),
             "--proxy-dhcp", str(served.DHCP), *more]
    with served.Ours(setting.aule, setting.work, setting.store, reference, image) as ours:
        first = boot([*words, "--nodes", "1"])
        say(f"  the first node, on a fresh server: {first['node']['max']:.2f} s")
        spent = ours.processor_seconds()
        report = boot([*words, "--nodes", str(nodes), "--ramp", str(ramp)])
        spent = ours.processor_seconds() - spent
        memory = ours.peak_memory()
        ours.check()
    if report["ok"] + report["failed"] != nodes:
        raise Failed(f"{nodes} nodes were to boot, {report['ok'] + report['failed']} did")
    say(f"  {tell(report)}; the server took {spent:.1f} s of processors")
    return [
        Judged(name, "nodes that failed", report["failed"], 0, ""),
        Judged(name, "peak memory of the server", memory / MIB, MEMORY / MIB, "MiB"),
        Judged(name, "slowest node, in medians", report["slowest_to_median"], SLOWEST, ""),
    ]


def boot(words):
    """Runs aule-load; its report also where nodes failed, which the report says."""
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False, timeout=1200)
    if not done.stdout.startswith("{"):
        raise Failed(f"aule-load ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    report = json.loads(done.stdout)
    for reason, count in report["reasons"].items():
        say(f"  {count} nodes failed: {reason}")
    if report["ok"] == 0:
        raise Failed(f"no node came up: {report['reasons']}")
    return report


def tell(report):
    phases = ", ".join(f"{name} {it['median']:.3f}/{it['p95']:.3f}/{it['max']:.3f}"
                       for name, it in [*report["phases"].items(), ("node", report["node"])])
    root = report["root"]
    return (f"{report['ok']} ok, {report['failed']} failed in {report['seconds']:.1f} s; "
            f"seconds as median/p95/max: {phases}; {report['boot_bytes'] // MIB} MiB over TFTP, {report['repeated']} packets sent again, "
            f"{report['unexpected']} blocks unexpected; {root['calls']} NFS calls, {root['files']} files with "
            f"{root['bytes'] // MIB} MiB")


def many(setting):
    """A thousand nodes within a minute, with small boot files."""
    nodes, ramp = (100, 6) if setting.quick else (1000, 60)
    return test(setting, f"{nodes} nodes in {ramp} s", nodes, ramp, setting.small_reference, "small",
                ["--read-max", str(READ_MAX)])


def full(setting):
    """Nodes with full-size boot files, all at once; they read all that was recorded."""
    nodes = 8 if setting.quick else 32
    return test(setting, f"{nodes} nodes at once", nodes, 0, setting.reference, "bench", [])


LOADS = {"load-many": many, "load-full": full}
