"""Stock servers, started and stopped: a log for each, ports that are waited for, and nfs-ganesha as an NFSv3 server.

For scripts that run in network, mount and process namespaces of their own.
"""
import subprocess
import time
from pathlib import Path


class Failed(Exception):
    """What went wrong, for the person who runs this."""


class Servers:
    """The servers that run, each with its log in the work directory."""

    def __init__(self, work):
        self.work = work
        self.running = {}

    def start(self, name, command):
        with open(self.work / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def check(self):
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with code {process.returncode}:\n{self.log(name)}")

    def log(self, name):
        return (self.work / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self):
        for process in self.running.values():
            process.kill()
            process.wait()


def wait_for_port(servers, port, seconds=30):
    """Waits until something listens on the TCP port (hexadecimal in /proc/net/tcp, state 0A is LISTEN)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        servers.check()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                    return
        time.sleep(0.1)
    raise Failed(f"nothing listens on port {port} after {seconds} s")


def own_run():
    """A /run of this mount namespace, with the directories that rpcbind and ganesha want."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    for name in ("/run/rpcbind", "/run/ganesha", "/run/sendsigs.omit.d"):
        Path(name).mkdir()


def start_ganesha(servers, root, export):
    """Exports a directory over NFSv3, read-only; ports 111, 2049 and 20048."""
    servers.start("rpcbind", ["rpcbind", "-f", "-w"])
    wait_for_port(servers, 111)
    configuration = servers.work / "ganesha.conf"
    configuration.write_text(f"""
NFS_CORE_PARAM {{
  Protocols = 3; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false;
  Mount_Path_Pseudo = true;
}}
NFSv4 {{ Graceless = true; }}
EXPORT {{
  Export_Id = 1; Path = {root}; Pseudo = {export};
  Access_Type = RO; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP;
  FSAL {{ Name = VFS; }}
}}
""")
    servers.start("ganesha", ["ganesha.nfsd", "-F", "-f", str(configuration), "-L", "/dev/stdout", "-N", "EVENT",
                              "-p", "/run/ganesha/ganesha.pid"])
    wait_for_port(servers, 2049)
    wait_for_port(servers, 20048)


def start_tgt(servers, mebibytes):
    """An iSCSI target with an empty disk; port 3260."""
    disk = servers.work / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(mebibytes << 20)
    servers.start("tgt", ["tgtd", "--foreground", "--iscsi", "portal=0.0.0.0:3260"])
    wait_for_port(servers, 3260)
    for words in (["--op", "new", "--mode", "target", "--tid", "1", "--targetname", "iqn.2025-01.invalid.example:disk"],
                  ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--backing-store", str(disk)],
                  ["--op", "bind", "--mode", "target", "--tid", "1", "--initiator-address", "ALL"]):
        subprocess.run(["tgtadm", "--lld", "iscsi", *words], check=True)
