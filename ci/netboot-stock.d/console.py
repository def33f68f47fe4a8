"""A node: QEMU's `virt` machine with U-Boot, and its serial console, which is read and typed at."""
import re
import threading
import time
from pathlib import Path

from stock import Failed

U_BOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
PANIC = re.compile(rb"Kernel panic - not syncing|\(initramfs\) |Emergency mode|You are in emergency mode")


def machine(interface, mac, memory):
    """The command of a machine of `memory` MiB at a tap; what it boots is to be added."""
    return ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", str(memory),
            "-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
            "-netdev", f"tap,id=net,ifname={interface},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=",
            "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]


class Console:
    """The node's serial console: everything it printed, and a way to type."""

    def __init__(self, process, log):
        self.process = process
        self.output = b""
        self.changed = threading.Condition()
        self.log = log
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with open(self.log, "wb") as log:
            while chunk := self.process.stdout.read1(65536):
                log.write(chunk)
                log.flush()
                with self.changed:
                    self.output += chunk
                    self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def type(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, pattern, end, servers, bad=None):
        """Position after the first match of `pattern`; fails on `bad`, on the end of QEMU or of time."""
        while True:
            with self.changed:
                found = pattern.search(self.output)
                if found:
                    return found.group(0).decode(errors="replace")
                if bad and (wrong := bad.search(self.output)):
                    raise Failed(f"the node stopped: {wrong.group(0).decode(errors='replace')!r}")
                if self.process.poll() is not None:
                    raise Failed(f"QEMU ended with code {self.process.returncode}")
                if time.monotonic() > end:
                    raise Failed(f"{pattern.pattern.decode()!r} did not appear on the console in time")
                self.changed.wait(timeout=1)
            servers.check()
