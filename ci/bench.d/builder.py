"""Builds the bench recipes in a copy of the checkout's, so that no lock or change gets into it."""
import json
import os
import shutil

from common import ROOT
from measure import measure

RECIPE = "ci/bench.d/recipe.yaml"
CHANGED = "ci/bench.d/overlay/etc/aule-bench/changed"


class Builder:
    """Builds a bench recipe, in a copy of it and of what it extends."""

    def __init__(self, aule, base, directory, recipe=RECIPE):
        self.aule, self.base, self.recipe = aule, base, recipe
        self.tree, self.store = os.path.join(directory, "checkout"), os.path.join(directory, "store")
        for name in ("recipes", "overlays", "ci/bench.d"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(self.tree, name), symlinks=True)
        self.memory = 0
        self.changes = 0

    def build(self, variant, watch_disk=False):
        """Builds a variant; what was measured, and the build as `--format json` tells it."""
        words = [self.aule, "--store", self.store, "--format", "json", "build", "--base", self.base]
        directory = self.store if watch_disk else None
        it = measure([*words, "--variant", variant, os.path.join(self.tree, self.recipe)], directory)
        self.memory = max(self.memory, it.memory)
        return it, json.loads(it.output.splitlines()[-1])["builds"][0]

    def forget(self):
        shutil.rmtree(self.store, ignore_errors=True)

    def change(self):
        """Changes one file of the overlay to what it never was before."""
        self.changes += 1
        with open(os.path.join(self.tree, CHANGED), "w", encoding="ascii") as file:
            file.write(f"One line that the benchmark changes between builds: {self.changes}\n")

    def blob(self, digest):
        return os.path.join(self.store, "blobs", *digest.split(":"))


def files_of(build):
    """Size and name of every file of a build by its digest: the same blob counts once."""
    return {file["digest"]: file for artifact in build["artifacts"] for file in artifact["files"]}
