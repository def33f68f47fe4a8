"""The rows of ci/bench serve that have a peer: each measured in turn with its peers, by the same client.

A run of ours is two passes: the first on a fresh server, with nothing in its cache of decompressed frames, the second on the
same server after that. Peers have one pass that does not count, and then take turns with ours.
"""
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import contents
import served
from awake import awake
from common import say
from stock import Failed
from served import ADDRESS, Peers

BLOCK = 1468
WINDOW = 16
# Calls on their way at once, for every NFS server alike.
DEPTH = 8
MIB = 1 << 20


@dataclass
class Row:
    """What was measured of ours and of one peer. Values are amounts a second: more is better."""

    name: str
    unit: str
    peer_name: str
    floor: float
    ours: float = 0.0
    cold: float = 0.0
    peer: float = 0.0
    note: str = ""


@dataclass
class Setting:
    """What all rows need: programs, what is served, where it lies."""

    aule: str
    load: str
    atftpd: str
    work: str
    store: str
    reference: str
    small_reference: str
    boot_file: str
    root: str
    root_blob: str
    quick: bool
    out: str = field(default="")

    @property
    def runs(self):
        return 1 if self.quick else 3

    @property
    def many(self):
        return 8 if self.quick else 32

    def ours(self):
        return served.Ours(self.aule, self.work, self.store, self.reference)


def run(words, timeout=600):
    """A client; its stdout. Raises Failed where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"`{' '.join(words)}` was not done in {timeout} s") from error
    if done.returncode != 0:
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def in_turn(setting, row_of_peer, measure_ours, peers, times=1):
    """Measures ours and the peers in turn. `peers` are functions by name; a measurement is a pair: amount a second, and
    what was given, which must be the same from all. Gives a row for each peer, with the fastest of each; `times` as many
    turns as other rows have."""
    colds, warms, theirs, given = [], [], {name: [] for name in peers}, {}

    def note(who, measured):
        rate, what = measured
        given[who] = what
        if len({json.dumps(it) for it in given.values()}) > 1:
            raise Failed(f"servers give different things: {given}")
        return rate

    for name, measure in peers.items():
        note(name, measure())
    ours = setting.ours()
    with ours, awake():
        for _ in range(setting.runs * times):
            ours.start()
            colds.append(note("ours, cold", measure_ours()))
            warms.append(note("ours", measure_ours()))
            for name, measure in peers.items():
                theirs[name].append(note(name, measure()))
            ours.check()
    rows = []
    for name in peers:
        row = row_of_peer(name)
        row.ours, row.cold, row.peer = max(warms), max(colds), max(theirs[name])
        rows.append(row)
    return rows


def tftp(setting, many, window):
    """The large boot file by one client or several, in lockstep or with a window."""
    clients = setting.many if many else 1
    windows = {}

    def fetch(who, port, name):
        def measure():
            words = [setting.load, "tftp", "--json", "--server", f"{ADDRESS}:{port}", "--clients", str(clients),
                     "--blksize", str(BLOCK), "--window", str(window), "--expect", setting.boot_file, name]
            it = json.loads(run(words))
            windows[who] = it["window"]
            if it["repeated"] or it["unexpected"]:
                say(f"  {who}: {it['repeated']} packets sent again, {it['unexpected']} blocks unexpected")
            return it["bytes"] / it["seconds"] / MIB, it["bytes"]
        return measure

    def row(peer):
        how = f"window {window}" if window > 1 else "lockstep"
        note = "" if windows[peer] == window else "grants no window: lockstep"
        return Row(f"TFTP {how}, {clients} client{'s' * (clients > 1)}", "MiB/s", peer, 1.0, note=note)

    with Peers(setting.work) as peers:
        peers.tftp(os.path.dirname(setting.boot_file), setting.atftpd)
        # atftpd is there because it grants windows.
        measures = {name: fetch(name, port, contents.BOOT_FILE) for name, port in served.PEER_TFTP.items()
                    if window > 1 or name != "atftpd"}
        # Two programs that wait for each other: what either server gives differs twofold from run to run.
        times = 5 if clients * window == 1 else 1
        rows = in_turn(setting, row, fetch("ours", served.TFTP, contents.BOOT_FILE), measures, times)
    if window > 1 and windows["ours"] != window:
        raise Failed(f"ours grants a window of {windows['ours']} in place of {window}")
    return rows


def http(setting):
    """The packed root by its digest, by curl."""
    digest = os.path.basename(setting.root_blob)

    def fetch(url):
        def measure():
            told = run(["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{time_total} %{size_download}", url])
            seconds, size = told.split()
            return float(size) / float(seconds) / MIB, int(size)
        return measure

    with Peers(setting.work) as peers:
        peers.nginx(os.path.dirname(setting.root_blob))
        ours = f"http://{ADDRESS}:{served.HTTP}/artifacts/sha256:{digest}"
        with setting.ours():
            found = run(["bash", "-o", "pipefail", "-c", f"curl -sS --fail '{ours}' | sha256sum"]).split()[0]
            if found != digest:
                raise Failed(f"the artifact {digest} arrives as {found}")
        return in_turn(setting, lambda peer: Row("HTTP artifact", "MiB/s", peer, 1.0), fetch(ours),
                       {"nginx": fetch(f"http://{ADDRESS}:{served.NGINX}/{digest}")})


def oci(setting):
    """The whole image, by skopeo into a directory in memory."""
    def pull(source):
        def measure():
            with tempfile.TemporaryDirectory(dir=setting.out) as directory:
                begin = time.monotonic()
                run(["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", f"docker://{source}",
                     f"dir:{directory}"])
                seconds = time.monotonic() - begin
                files = {name: os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory)}
            size = sum(files.values())
            return size / seconds / MIB, sorted(name for name in files if len(name) == 64)
        return measure

    with Peers(setting.work) as peers:
        peers.registry()
        there = f"{ADDRESS}:{served.REGISTRY}/bench:latest"
        run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false",
             f"oci:{setting.store}:{setting.reference}", f"docker://{there}"])
        return in_turn(setting, lambda peer: Row("OCI pull, skopeo", "MiB/s", peer, 1.0),
                       pull(f"{ADDRESS}:{served.HTTP}/bench:latest"), {"docker-registry": pull(there)})


def nfs(setting, what, name, unit, floor, amount):
    """One of aule-load's NFS measurements; `amount` says what of its result is counted."""
    def measured(port, mount, export):
        def measure():
            words = [setting.load, "nfs", "--json", "--server", f"{ADDRESS}:{port}", "--mount", str(mount), "--export",
                     export, "--depth", str(DEPTH), *what]
            it = json.loads(run(words))
            return amount(it) / it["seconds"], [it["items"], it["bytes"], it["checksum"]]
        return measure

    with Peers(setting.work) as peers:
        peers.ganesha(setting.root)
        return in_turn(setting, lambda peer: Row(name, unit, peer, floor), measured(served.NFS, served.NFS, "/bench"),
                       {"nfs-ganesha": measured(served.GANESHA, served.GANESHA_MOUNT, served.EXPORT)})


ROWS = {
    "tftp-1": lambda it: tftp(it, False, 1),
    "tftp-many": lambda it: tftp(it, True, 1),
    "tftp-window-1": lambda it: tftp(it, False, WINDOW),
    "tftp-window-many": lambda it: tftp(it, True, WINDOW),
    "http": http,
    "oci": oci,
    "nfs-read": lambda it: nfs(it, ["read", contents.LARGE], "NFS sequential read", "MiB/s", 1.0,
                               lambda result: result["bytes"] / MIB),
    "nfs-small": lambda it: nfs(it, ["small", contents.SMALL], f"NFS {contents.SMALL_FILES:,} small files", "files/s", 2.0,
                                lambda result: result["items"]),
    "nfs-find": lambda it: nfs(it, ["walk"], "NFS find over the root", "entries/s", 1.0, lambda result: result["items"]),
}
