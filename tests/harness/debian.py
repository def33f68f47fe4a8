"""A small archive of Debian packages: made here, signed by a key of its own, served over HTTP, and wrong where a test wants it.
"""
import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
import time

from harness.cases import Skipped, run


class Package:
    """A package with its scripts and files. `files` maps paths to text; a list of parts is given to dpkg-deb as it is."""

    def __init__(self, name, version="1.0", architecture="all", files=None, scripts=None, links=None, **fields):
        self.name, self.version, self.architecture = name, version, architecture
        self.files, self.scripts, self.links = files or {}, scripts or {}, links or {}
        self.fields = {key.replace("_", "-"): value for key, value in fields.items()}

    def control(self):
        fields = {"Package": self.name, "Version": self.version, "Architecture": self.architecture,
                  "Maintainer": "Nobody <nobody@example.invalid>", "Priority": "optional", **self.fields,
                  "Description": f"{self.name} of a test"}
        return "".join(f"{key}: {value}\n" for key, value in fields.items())

    def build(self, directory):
        with tempfile.TemporaryDirectory(prefix="aule-deb-") as root:
            os.chmod(root, 0o755)
            for path, text in {**self.files, "DEBIAN/control": self.control()}.items():
                place = os.path.join(root, path)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "w") as file:
                    file.write(text)
            for path, target in self.links.items():
                place = os.path.join(root, path)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(target, place)
            for name, text in self.scripts.items():
                place = os.path.join(root, "DEBIAN", name)
                with open(place, "w") as file:
                    file.write(text)
                if name in ("preinst", "postinst", "prerm", "postrm", "config"):
                    os.chmod(place, 0o755)
            name = f"{self.name}_{self.version}_{self.architecture}.deb"
            environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
            run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, os.path.join(directory, name)], env=environment)
            return name


class Archive:
    """`with Archive([…]) as archive`: `archive.url`, and the file `archive.key` to put beside a recipe."""

    def __init__(self, directory, packages, architecture="arm64"):
        self.directory, self.architecture = directory, architecture
        self.pool = os.path.join(directory, "www", "pool")
        self.suite = os.path.join(directory, "www", "dists", "stable")
        os.makedirs(self.pool)
        self.home = tempfile.mkdtemp(prefix="aule-gpg-")
        self.key = os.path.join(directory, "archive.gpg")
        # The key is older than any snapshot.
        self.gpg("--faked-system-time", "20200101T000000!", "--quick-generate-key", "Archive of a test <archive@example.invalid>", "ed25519", "sign", "never")
        with open(self.key, "wb") as file:
            file.write(self.gpg("--export", text=False))
        self.asked = []
        # Called with the path of each request before it is answered.
        self.before = lambda path: None
        self.stanzas = {}
        for package in packages:
            self.add(package)
        self.publish()

    def gpg(self, *arguments, text=True, **options):
        done = run(["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "",
                    *arguments], text=text, errors=None, **options)
        return done.stdout

    def add(self, package):
        name = package.build(self.pool)
        self.list(package, name)

    def list(self, package, name, **changed):
        with open(os.path.join(self.pool, name), "rb") as file:
            data = file.read()
        fields = {"Filename": f"pool/{name}", "Size": len(data), "SHA256": hashlib.sha256(data).hexdigest(), **changed}
        self.stanzas[package.name, package.version] = package.control() + "".join(f"{k}: {v}\n" for k, v in fields.items())

    def publish(self, valid=86400, date=None, by_hash=True, sign=True, wrong_index=False, detached=False, suite="stable",
                more=""):
        """Writes the indices and the signed Release anew."""
        shutil.rmtree(self.suite, ignore_errors=True)
        place = f"main/binary-{self.architecture}"
        os.makedirs(os.path.join(self.suite, place, "by-hash", "SHA256"))
        text = "\n".join(self.stanzas.values()).encode()
        listed = ""
        for name, data in [("Packages", text), ("Packages.gz", gzip.compress(text, mtime=0))]:
            digest = hashlib.sha256(data).hexdigest()
            if wrong_index:
                data += b"\n"
            for path in (name, f"by-hash/SHA256/{digest}"):
                with open(os.path.join(self.suite, place, path), "wb") as file:
                    file.write(data)
            listed += f" {digest} {len(data)} {place}/{name}\n"
        now = date or time.time()
        stamp = lambda at: time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(at))  # noqa: E731
        release = (f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: {stamp(now)}\nValid-Until: {stamp(now + valid)}\n"
                   f"Acquire-By-Hash: {'yes' if by_hash else 'no'}\nArchitectures: {self.architecture}\nComponents: main\n"
                   f"{more}SHA256:\n{listed}")
        plain = os.path.join(self.suite, "Release")
        with open(plain, "w") as file:
            file.write(release)
        if sign and detached:
            self.gpg("--armor", "--output", plain + ".gpg", "--detach-sign", plain)
        elif sign:
            then = ["--faked-system-time", f"{int(date)}!"] if date and date < time.time() else []
            self.gpg(*then, "--output", os.path.join(self.suite, "InRelease"), "--clearsign", plain)
        return self

    def freeze(self, identifier):
        """Keeps the archive as it is now, as a snapshot service has it."""
        place = os.path.join(self.directory, "www", "archive", "test", identifier)
        for name in ("dists", "pool"):
            shutil.copytree(os.path.join(self.directory, "www", name), os.path.join(place, name))

    def __enter__(self):
        archive = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, directory=os.path.join(archive.directory, "www"), **options)

            def do_GET(self):
                archive.before(self.path)
                super().do_GET()

            def log_message(self, *arguments):
                archive.asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.home, ignore_errors=True)


def mirror():
    """The machine's own Debian mirror, as its apt has it."""
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], check=False,
                           capture_output=True, text=True).stdout.split()
    found = sorted({uri.rstrip("/") for uri in found if uri.rstrip("/").endswith("/debian")})
    uri = found[0] if found else None
    if uri and uri.startswith("mirror+file:"):
        with open(uri[len("mirror+file:"):]) as file:
            uri = next((line.split()[0].rstrip("/") for line in file if line.strip() and not line.startswith("#")), None)
    if not uri:
        raise Skipped("apt's sources name no Debian mirror")
    return uri
