"""The servers of ci/bench serve: ours, fresh whenever that is asked for, and its peers from Debian. All on 127.0.0.1 of a
network namespace of their own.
"""
import subprocess
import time
from pathlib import Path

from measure import TICKS
from stock import Failed, Servers, start_ganesha, wait_for_port

ADDRESS = "127.0.0.1"
# Ours; the peers have the ports that they are known by, as not all of them can be moved.
TFTP, HTTP, NFS, PORTMAP = 6901, 8001, 12049, 10111
DHCP = 67
PEER_TFTP = {"dnsmasq": 69, "tftpd-hpa": 6902, "atftpd": 6903}
NGINX, REGISTRY, GANESHA, GANESHA_MOUNT = 8080, 5000, 2049, 20048
EXPORT = "/bench"
# What the server keeps of decompressed frames: its default.
CACHE = 256 << 20


class Ours:
    """`aule serve` of one image; runs within its block."""

    def __init__(self, aule, work, store, reference, image="bench"):
        self.aule, self.work, self.image = aule, Path(work), image
        self.servers = None
        self.site = self.work / f"site-{image}.yaml"
        self.site.write_text(f"""store: {store}
state: {work}/state-{image}
address: {ADDRESS}
images:
  {image}: {{ ref: "{reference}" }}
nodes:
  - match: {{ any: true }}
    name: "node-{{{{ address }}}}"
    image: {image}
listen:
  tftp: {ADDRESS}:{TFTP}
  http: {ADDRESS}:{HTTP}
  nfs: {ADDRESS}:{NFS}
  portmap: {ADDRESS}:{PORTMAP}
  proxy_dhcp: {ADDRESS}:{DHCP}
cache: {CACHE}
""")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, seconds=120):
        """Starts it anew: nothing is in its cache then."""
        self.stop()
        self.servers = Servers(self.work)
        self.servers.start("aule", [self.aule, "serve", str(self.site)])
        end = time.monotonic() + seconds
        while not self.servers.log("aule").rstrip().endswith("serving"):
            self.servers.check()
            if time.monotonic() > end:
                raise Failed(f"aule serve does not start: {self.servers.log('aule')}")
            time.sleep(0.05)

    def check(self):
        """Sees that it still runs."""
        self.servers.check()

    def peak_memory(self):
        """The most memory that it had so far, in bytes (VmHWM in proc_pid_status(5))."""
        status = Path(f"/proc/{self.servers.running['aule'].pid}/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def processor_seconds(self):
        """User and system time of all its threads (fields 14 and 15 of proc_pid_stat(5))."""
        fields = Path(f"/proc/{self.servers.running['aule'].pid}/stat").read_text(encoding="ascii", errors="replace")
        return sum(map(int, fields.rsplit(")", 1)[1].split()[11:13])) / TICKS

    def stop(self):
        if self.servers:
            self.servers.stop()
            self.servers = None


class Peers:
    """The peers of some rows; they end with the block."""

    def __init__(self, work):
        self.work = Path(work)
        self.servers = Servers(self.work)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.servers.stop()

    def tftp(self, directory, atftpd):
        """dnsmasq, tftpd-hpa and atftpd of a directory."""
        self.servers.start("dnsmasq", [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--port=0",
            f"--listen-address={ADDRESS}", "--bind-interfaces", "--log-facility=-", "--enable-tftp", "--tftp-max=1000",
            f"--tftp-root={directory}"])
        self.servers.start("tftpd-hpa", ["in.tftpd", "--foreground", "--listen", "--user", "root", "--address",
                                         f"{ADDRESS}:{PEER_TFTP['tftpd-hpa']}", "--secure", str(directory)])
        self.servers.start("atftpd", [atftpd, "--daemon", "--no-fork", "--user", "root.root", "--logfile", "-",
                                      "--port", str(PEER_TFTP["atftpd"]), "--bind-address", ADDRESS, str(directory)])
        time.sleep(1)  # UDP: nothing says that they are there; the first request would be sent again after a second
        self.servers.check()

    def nginx(self, directory):
        """nginx of a directory, with sendfile."""
        configuration = self.work / "nginx.conf"
        configuration.write_text(f"""
daemon off; user root; worker_processes auto; pid {self.work}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {self.work}/nginx-body; proxy_temp_path {self.work}/nginx-proxy;
  fastcgi_temp_path {self.work}/nginx-fastcgi; uwsgi_temp_path {self.work}/nginx-uwsgi;
  scgi_temp_path {self.work}/nginx-scgi;
  server {{ listen {ADDRESS}:{NGINX}; root {directory}; }}
}}
""")
        self.servers.start("nginx", ["nginx", "-c", str(configuration), "-e", "stderr"])
        wait_for_port(self.servers, NGINX)

    def registry(self):
        """docker-registry, empty."""
        configuration = self.work / "registry.yaml"
        configuration.write_text(f"""version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {self.work}/registry }} }}
http: {{ addr: "{ADDRESS}:{REGISTRY}" }}
""")
        self.servers.start("docker-registry", ["docker-registry", "serve", str(configuration)])
        wait_for_port(self.servers, REGISTRY)

    def ganesha(self, root):
        """nfs-ganesha of a directory."""
        start_ganesha(self.servers, root, EXPORT)


def namespace():
    """Makes the namespace's loopback usable: 127.0.0.0/8, and one address that is none of the loopback's, without which
    getaddrinfo(3) with AI_ADDRCONFIG, as tftpd-hpa calls it, knows no IPv4."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
