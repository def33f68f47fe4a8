"""A running `aule serve` of the tiny build, on ports of its own."""
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request

from harness import aule as a
from harness.cases import check, run, same

REFERENCE = "tiny:netboot"


class Served:
    """A server of the tiny build on ports of its own; ends with the block."""

    def __init__(self, context, extra="", match="any: true", listen="", base=20000 + os.getpid() % 20000):
        self.store, self.state = context.path("store"), context.path("state")
        self.ports = {name: base + number for number, name in enumerate(("tftp", "http", "nfs", "portmap"))}
        listen += "".join(f"  {name}: 127.0.0.1:{port}\n" for name, port in self.ports.items())
        self.text = (f"store: {self.store}\nstate: {self.state}\nimages:\n  stable: {{ ref: '{REFERENCE}' }}\n"
                     f"nodes:\n  - match: {{ {match} }}\n    name: node\n    image: stable\n{extra}listen:\n{listen}")
        self.site = a.write(context.path("site.yaml"), self.text)
        self.log = context.path("log")

    def __enter__(self):
        self.start()
        return self

    def start(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([*a.command(self.store, "serve", self.site)], stderr=log)
        for _ in range(100):
            with open(self.log, encoding="utf-8") as log:
                if log.read().rstrip().endswith("serving"):
                    return
            check(self.process.poll() is None, f"the server ended: {self.said()}")
            time.sleep(0.1)
        check(False, "the server does not start")

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_for(self, text):
        """Waits until the log says so."""
        for _ in range(100):
            if text in self.said():
                return
            time.sleep(0.1)
        check(False, f"the log does not say `{text}`: {self.said()}")

    def restart(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if _[0] is not None:
            print("      the server said: " + self.said()[-2000:].strip().replace("\n", "\n      "), flush=True)

    def nfs(self, path):
        port = self.ports["nfs"]
        return f"nfs://127.0.0.1{path}?nfsport={port}&mountport={port}"

    def url(self, path):
        return f"http://127.0.0.1:{self.ports['http']}{path}"

    def ask(self, path, method="GET", **headers):
        """Status, headers and body."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(self.url(path), method=method, headers=headers)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path):
        status, _, body = self.ask(path)
        same(f"status of {path}", status, 200)
        return body.decode()

    def memory(self, what):
        """`VmRSS` or `VmHWM` of the server, in MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return int(re.search(rf"{what}:\s+(\d+) kB", status.read())[1]) >> 10

    def begin(self):
        """What begins a boot: a boot file."""
        out = run(["curl", "-sS", f"tftp://127.0.0.1:{self.ports['tftp']}/cmdline.txt"]).stdout
        return re.search(r"s=http://[^/]+(/seed/\S+?)[;\s]", out + " ")[1]

    def nodes(self):
        return json.loads(self.get("/nodes"))["nodes"]


def built(context):
    a.build(context.path("store"), a.TINY_RECIPE, "--base", a.tiny())
    return context.path("store")
