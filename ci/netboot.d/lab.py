"""The work directory of ci/netboot: program, checkout, stores, sites; and replicas of the server that run from it."""
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import lan
from stock import Failed

TOP = Path(__file__).resolve().parent.parent.parent
# Nobody on the host has this number.
USER = "64123"
REFERENCE = "lab:netboot"
SECRET = "mellon-4711"
# The server knows them by their Ethernet addresses, and one by the serial number that it sends with each request of TFTP.
# (U-Boot 2023.01 reads the first byte of a virtio card's address six times over.)
MACS = {"manwe": "52:52:52:52:52:52", "varda": "56:56:56:56:56:56", "ulmo": "52:54:00:76:00:03"}
SERIALS = {"varda": "5a1d3c2b"}
# What only asks for an address.
PI = "dc:a6:32:76:00:01"


def unprivileged(command, ports=False):
    """The command as a user who may do nothing special, but bind low ports where that is said."""
    rights = ["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service", "--bounding-set=-all,+net_bind_service"]
    rights = rights if ports else ["--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", *rights, "--no-new-privs", *command]


class Lab:
    """The work directory: program, checkout, store, sites."""

    def __init__(self, work):
        self.work = work
        self.aule = work / "aule"
        self.store = work / "store"

    def prepare(self):
        """Copies what an unprivileged user must be able to read, as the checkout may lie where only root may."""
        program = Path(os.environ.get("AULE") or TOP / "target/release/aule")
        if not program.exists():
            raise Failed(f"there is no {program}: build it (cargo build --release), or say with $AULE where it is")
        shutil.copy(program, self.aule)
        for name in ("recipes", "overlays", "tests/recipes"):
            shutil.copytree(TOP / name, self.work / "checkout" / name, symlinks=True)
        shutil.copytree(TOP / "target/base", self.work / "checkout/target/base")
        self.add_grub()
        (self.work / "token").write_text(SECRET + "\n")
        (self.work / "key").write_bytes(os.urandom(32))
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self.work)], check=True)
        self.work.chmod(0o755)

    def add_grub(self):
        """Puts GRUB's network image among the boot files, as who boots UEFI machines does."""
        for package in self.work.glob("grub-efi-arm64-signed*.deb"):
            name = "./usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed"
            archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True).stdout
            image = subprocess.run(["tar", "-xO", name], input=archive, capture_output=True, check=True).stdout
            place = self.work / "checkout/tests/recipes/netboot/boot/firmware"
            place.mkdir(parents=True)
            (place / "grubnetaa64.efi").write_bytes(image)

    def copy_store(self, name):
        """A store with the same builds for another replica."""
        copy = self.work / f"store-{name}"
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.store), str(copy)], check=True)
        return copy

    def build(self, marker):
        """Builds the recipe with another marker; gives digest, marker and what a node's probe must find."""
        recipe = self.work / "checkout/tests/recipes/netboot.yaml"
        recipe.write_text(re.sub(r'content: "\w+\\n" }', f'content: "{marker}\\\\n" }}', recipe.read_text()))
        command = [str(self.aule), "--store", str(self.store), "--format", "json", "build", str(recipe),
                   "--base", str(self.work / "checkout/target/base/base.img.xz")]
        done = subprocess.run(unprivileged(command), capture_output=True, text=True, check=False, cwd=self.work)
        if done.returncode != 0:
            raise Failed(f"the build failed:\n{done.stderr[-3000:]}")
        built = json.loads(done.stdout.splitlines()[-1])["builds"][0]
        files = {it.get("name"): it["digest"] for artifact in built["artifacts"] for it in artifact.get("files") or ()}
        root = self.work / f"root-{marker}"
        root.mkdir()
        blob = self.store / "blobs" / files["root.tar.zst"].replace(":", "/")
        subprocess.run(["tar", "--zstd", "-xf", str(blob), "-C", str(root), "--wildcards", "etc/*", "./etc/*"], check=False,
                       stderr=subprocess.DEVNULL)
        wanted = hashlib.sha256()
        paths = sorted(os.fsencode(os.path.join("./", os.path.relpath(os.path.join(at, name), root / "etc")))
                       for at, _, names in os.walk(root / "etc") for name in names
                       if not os.path.islink(os.path.join(at, name)))
        for path in paths:
            wanted.update((root / "etc" / os.fsdecode(path)).read_bytes())
        if len(paths) < 100:
            raise Failed(f"only {len(paths)} files in /etc of {blob}")
        return built["digest"].split("@")[-1], marker, wanted.hexdigest()

    def site(self, name, store, state):
        """A site file for a replica."""
        path = self.work / f"{name}.yaml"

        def match(node):
            return f"serial: {SERIALS[node]}" if node in SERIALS else f"mac: '{MACS[node]}'"
        rules = "".join(f"  - match: {{ {match(node)} }}\n    name: {node}\n    image: stable\n" for node in MACS)
        rules += f"  - match: {{ mac: '{PI}' }}\n    name: pi\n    image: stable\n"
        path.write_text(f"store: {store}\nstate: {state}\naddress: {lan.ADDRESS}\n"
                        f"handle_key: {{ file: {self.work}/key }}\nimages: {{ stable: {{ ref: '{REFERENCE}' }} }}\n"
                        f"nodes:\n{rules}secrets: {{ token: {{ file: {self.work}/token }} }}\n"
                        "listen: { proxy_dhcp: '0.0.0.0:67' }\nallow: [192.168.76.0/24]\n")
        return path


class Replica:
    """`aule serve` in a namespace; with a state of its own if it is not given one."""

    def __init__(self, lab, name, host=None, store=None, state=None):
        self.lab, self.name, self.host = lab, name, host or name
        self.state = state or lab.work / f"state-{name}"
        if not self.state.exists():
            self.state.mkdir()
            os.chown(self.state, int(USER), int(USER))
        self.site = lab.site(name, store or lab.store, self.state)
        self.log_path = lab.work / f"serve-{name}.log"

    def start(self):
        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            command = lan.within(self.host, unprivileged([str(self.lab.aule), "serve", str(self.site)], ports=True))
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        for _ in range(300):
            if self.process.poll() is not None:
                break
            with open(self.log_path, "rb") as log:
                log.seek(begin)
                if b"serving\n" in log.read():
                    return
            time.sleep(0.1)
        raise Failed(f"the server does not start:\n{self.log()}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait_for_line(self, line, seconds):
        """Whether the log gets the line in that time."""
        end = time.monotonic() + seconds
        while line not in self.log_path.read_text(errors="replace").splitlines():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def check_log(self, results):
        """Whether all that it ever said, and all that it wrote down, is free of panics and of the secret."""
        text = self.log_path.read_text(errors="replace")
        results.check(f"no log line of {self.name} is a panic, and none holds the secret",
                      not re.search(f"panicked|{SECRET}", text), self.log())
        told = [str(it) for it in self.state.rglob("*") if it.is_file() and SECRET.encode() in it.read_bytes()]
        results.check(f"the secret is in no file of the state of {self.name}", not told, str(told))
