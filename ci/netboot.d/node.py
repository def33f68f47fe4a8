"""A machine of ci/netboot, what it says on its console, and what the server says of it."""
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import lan
from console import PANIC, U_BOOT, Console, machine
from lab import MACS
from stock import Failed

UEFI = Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
STOPPED = re.compile(PANIC.pattern + rb"|Config file not found|Bad Linux ARM64 Image|bootarg overflow|Shell> |grub> ")
MEMORY = 1280
PROBE = re.compile(rb"aule-probe (\d+) ([0-9a-f]{64}) (\S+)\.")
ABOUT = re.compile(rb"aule-node name=(\S*) machine=(\S*) token=(\S*) key=(\S*) instance=(\S*) marker=(\S*) failed=(\S*)\.")


def get(path):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{lan.ADDRESS}{path}", timeout=10) as answer:
        return answer.read().decode()


def nodes():
    """What the server says of its nodes, by name; nothing while it cannot be asked."""
    try:
        return {it["name"]: it for it in json.loads(get("/nodes"))["nodes"]}
    except (OSError, urllib.error.URLError, json.JSONDecodeError):
        return {}


class Node:
    """A machine and what it says on its console."""

    def __init__(self, lab, servers, name, number, timeout):
        self.lab, self.servers, self.name, self.timeout = lab, servers, name, timeout
        self.interface = f"tap{number}"
        self.boots = 0
        lan.make_tap(self.interface)

    def start(self):
        """With U-Boot, which waits for what is typed."""
        self.power_on(U_BOOT)

    def start_uefi(self):
        """With UEFI, which finds everything by itself."""
        self.power_on(UEFI)

    def power_on(self, firmware):
        self.boots += 1
        self.before = nodes().get(self.name, {}).get("boot", 0)
        self.log = self.lab.work / f"{self.name}-{self.boots}.console"
        command = [*machine(self.interface, MACS[self.name], MEMORY), "-bios", str(firmware)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.console = Console(self.process, self.log)
        self.end = time.monotonic() + self.timeout

    def type_boot(self):
        """Types at U-Boot's prompt; where everything is, DHCP says."""
        self.wait(re.compile(rb"Hit any key to stop autoboot"))
        self.console.type("")
        self.wait(re.compile(rb"\n=> "))
        self.console.type("setenv autoload no; dhcp; pxe get && pxe boot")

    def wait(self, pattern):
        return self.console.wait_for(pattern, self.end, self.servers, STOPPED)

    def wait_for_stage(self, stages):
        while True:
            seen = nodes().get(self.name, {})
            # What it did in the boot before does not count.
            stage = seen.get("stage") if seen.get("boot", 0) > self.before else None
            if stage in stages:
                return stage
            if wrong := STOPPED.search(self.console.output):
                raise Failed(f"{self.name} stopped: {wrong[0].decode()}")
            if self.process.poll() is not None or time.monotonic() > self.end:
                raise Failed(f"{self.name} does not come to {stages[0]}, it is at {stage}")
            time.sleep(0.5)

    def about(self):
        return [it.decode() for it in ABOUT.search(self.wait(ABOUT).encode()).groups()]

    def probes(self):
        return [(int(count), digest.decode(), name.decode()) for count, digest, name in PROBE.findall(self.console.output)]

    def probes_after(self, more, seconds=120):
        """Waits for `more` probes that begin after this moment; gives them, fewer when they do not come."""
        # One may be on its way; it does not count.
        seen = len(self.probes()) + 1
        end = time.monotonic() + seconds
        while len(self.probes()) < seen + more and time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.5)
        return self.probes()[seen:seen + more]

    def stop(self):
        self.process.kill()
        self.process.wait()
