"""apt as somebody asks it what it would do: of a foreign architecture, and with nothing of this machine's but its mirror."""
import os
import re
import subprocess
import sys

COMPONENTS = ["main", "non-free-firmware"]
KEYRINGS = ["/usr/share/keyrings/debian-archive-keyring.gpg"]


class Apt:
    """apt for arm64 with nothing of the host's but its proxies and its mirror."""

    def __init__(self, directory, suite):
        self.directory = directory
        for name in ("lists/partial", "archives/partial", "etc"):
            os.makedirs(os.path.join(directory, name))
        self.status = os.path.join(directory, "status")
        self.configuration = os.path.join(directory, "apt.conf")
        for path in (self.status, os.path.join(directory, "extended_states")):
            with open(path, "w", encoding="utf-8"):
                pass
        with open(os.path.join(directory, "etc", "sources.list"), "w", encoding="utf-8") as file:
            file.write(f"deb [signed-by={','.join(KEYRINGS)}] {mirror()} {suite} {' '.join(COMPONENTS)}\n")
        proxies = re.findall(r"^Acquire::https?::.*$", output(["apt-config", "dump"]), re.MULTILINE)
        settings = {
            "Dir::Etc": f"{directory}/etc", "Dir::Etc::sourcelist": f"{directory}/etc/sources.list",
            "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::parts": "/dev/null", "Dir::Etc::main": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null", "Dir::State": directory,
            "Dir::State::status": self.status, "Dir::State::lists": f"{directory}/lists", "Dir::Cache": directory,
            "Dir::Cache::archives": f"{directory}/archives", "Dir::Log": directory, "APT::Architecture": "arm64",
            "APT::Install-Recommends": "false", "APT::Sandbox::User": "root", "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write("\n".join([*proxies, *(f'{name} "{value}";' for name, value in settings.items())]))
            file.write('\nAPT::Architectures { "arm64"; };\n')
        done = self.run("update")
        if done.returncode != 0:
            sys.exit(f"apt: {done.stderr.strip()}")

    def run(self, *words):
        environment = {**os.environ, "APT_CONFIG": self.configuration, "LC_ALL": "C"}
        return subprocess.run(["apt-get", "-q", *words], env=environment, capture_output=True, text=True, check=False)

    def indices(self):
        names = sorted(os.listdir(os.path.join(self.directory, "lists")))
        return [os.path.join(self.directory, "lists", name) for name in names if name.endswith("_Packages")]

    def takes(self, names):
        """What it would install and remove, with versions; `None` where it cannot."""
        done = self.run("-s", "install", *names)
        if done.returncode != 0:
            return None
        changes = set()
        for line in done.stdout.splitlines():
            # Inst name [old version] (new version source [architecture])
            found = re.match(r"Inst (\S+) (?:\[\S+\] )?\((\S+)", line) or re.match(r"Remv (\S+) \[(\S+?)\]", line)
            if found:
                changes.add((line[:4], found[1], found[2]))
        return changes

    def install(self, names):
        """Writes dpkg's database as if they were installed."""
        wanted = {(name, version) for _, name, version in self.takes(names)}
        with open(self.status, "w", encoding="utf-8") as status:
            for paragraph in paragraphs(self.indices()):
                name = re.search(r"^Package: (\S+)", paragraph, re.MULTILINE)[1]
                version = re.search(r"^Version: (\S+)", paragraph, re.MULTILINE)[1]
                if (name, version) in wanted:
                    wanted.remove((name, version))
                    status.write(f"{paragraph}\nStatus: install ok installed\n\n")


def output(words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def mirror():
    listed = output(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).split()
    uris = sorted({uri.rstrip("/") for uri in listed if uri.rstrip("/").endswith("/debian")})
    if not uris:
        sys.exit("apt's sources name no Debian mirror (a URL that ends in /debian)")
    if uris[0].startswith("mirror+file:"):
        with open(uris[0].removeprefix("mirror+file:"), encoding="utf-8") as file:
            return next(line.split()[0] for line in file if line.strip() and not line.startswith("#")).rstrip("/")
    return uris[0]


def paragraphs(paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            yield from (it for it in file.read().split("\n\n") if it.strip())
