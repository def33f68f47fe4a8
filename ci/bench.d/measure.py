"""Runs a program or pipeline and measures it: wall time, processor time, memory, and disk space where asked.

Memory is that of all its processes together without the page cache: anonymous and shared pages (`RssAnon` and `RssShmem`
of proc_pid_status(5)), looked at every few milliseconds, so that mapped files do not count. Disk space is what a directory
takes (`st_blocks`) with the files that are open but have no name any more.
"""
import os
import signal
import stat
import subprocess
import threading
import time
from dataclasses import dataclass

MEMORY_INTERVAL = 0.02
DISK_INTERVAL = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
# How much of what a failed program wrote to stderr is told.
TOLD = 4000


class Failed(Exception):
    """A measured program failed."""


@dataclass
class Measured:
    """Seconds and bytes of one run; `others` is the share of all processors that other programs had, 0 to 1."""

    wall: float
    cpu: float
    memory: int
    disk: int
    others: float
    output: str


running = None


def stop_running():
    """Ends what is being measured, with all its processes."""
    if running is not None and running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def busy_seconds():
    """Processor seconds that were not idle since boot, of all programs (`cpu` in proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def family(pid):
    """A process and its descendants."""
    found = [pid]
    for member in found:
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/children", encoding="ascii") as file:
                    found.extend(map(int, file.read().split()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def resident(pid):
    """Bytes of a process in memory that are not the page cache's."""
    total = 0
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total


def disk_used(directory):
    """Bytes that the files of a directory take; those with several names once."""
    seen = {}
    for top, _, names in os.walk(directory):
        for name in names:
            try:
                found = os.lstat(os.path.join(top, name))
            except FileNotFoundError:
                continue
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def unlinked_used(pid, device):
    """Bytes of the files on a device that a process has open and that have no name any more."""
    seen = {}
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                found = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == device:
                seen[found.st_ino] = found.st_blocks * 512
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sum(seen.values())


class Watcher(threading.Thread):
    """Looks at a process until it is told to stop, and keeps the peaks."""

    def __init__(self, pid, directory):
        super().__init__(daemon=True)
        self.pid, self.directory = pid, directory
        self.memory = self.disk = 0
        self.ended = threading.Event()

    def run(self):
        disk_due = 0.0
        while True:
            self.memory = max(self.memory, sum(map(resident, family(self.pid))))
            if self.directory and time.monotonic() >= disk_due:
                device = os.stat(os.path.dirname(self.directory)).st_dev
                # Unlinked files first: one that gets its name between the two counts twice rather than never.
                used = unlinked_used(self.pid, device) + disk_used(self.directory)
                self.disk = max(self.disk, used)
                disk_due = time.monotonic() + DISK_INTERVAL
            if self.ended.wait(MEMORY_INTERVAL):
                return


def measure(command, directory=None, cwd=None):
    """Runs `command`, a list, or a string for bash, and measures it; `directory` is whose disk space is looked at.

    What earlier runs wrote is on the disk before the clock starts. Raises Failed with what it wrote to stderr.
    """
    global running
    words = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else command
    os.sync()
    before = busy_seconds()
    start = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    running = child = subprocess.Popen(words, cwd=cwd, start_new_session=True, **pipes)
    watcher = Watcher(child.pid, directory)
    watcher.start()
    texts = {}
    readers = [
        threading.Thread(target=lambda name=name, pipe=pipe: texts.update({name: pipe.read()}), daemon=True)
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr))
    ]
    for reader in readers:
        reader.start()
    # wait4 in place of communicate(): it tells the processor time of the child and of all that it waited for.
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    watcher.ended.set()
    for thread in [watcher, *readers]:
        thread.join()
    running = None
    if child.returncode != 0:
        shown = command if isinstance(command, str) else " ".join(command)
        told = texts["stderr"].decode(errors="replace")[-TOLD:]
        raise Failed(f"`{shown}` ended with {child.returncode}:\n{told}")
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, busy_seconds() - before - cpu) / (max(wall, 1 / TICKS) * os.cpu_count())
    disk = max(watcher.disk, disk_used(directory)) if directory else 0
    return Measured(wall, cpu, watcher.memory, disk, min(others, 1.0), texts["stdout"].decode(errors="replace"))
