"""The limits: which measured values are judged against what, and the table of it."""
from dataclasses import dataclass

MIB = 1 << 20
# A limit that is missed by more than this factor fails the benchmark.
FLOOR = 4 / 3


@dataclass
class Limit:
    """A measured value and what it may be; `unit` is `s` or `MiB`, `how` says how the limit comes about."""

    name: str
    how: str
    measured: float
    limit: float
    unit: str

    @property
    def ratio(self):
        return self.measured / self.limit

    @property
    def verdict(self):
        if self.ratio <= 1:
            return "met"
        return "missed, within a third" if self.ratio <= FLOOR else "MISSED"

    @property
    def failed(self):
        return self.ratio > FLOOR


def limits(times, memory, disk, raw_size, outputs_size):
    """All limits. `times` are seconds by row, the rest bytes: peak memory and disk, the raw image, and all outputs."""
    floor = times["floor"] + times["zstd"]
    return [
        Limit("cold build", "1.5 x (xz and sha256sum + zstd of the root)", times["cold"], 1.5 * floor, "s"),
        Limit("cold build", "half of the script's steps", times["cold"], times["script"] / 2, "s"),
        Limit("nothing changed", "0.2 s", times["nothing"], 0.2, "s"),
        Limit("one file changed, boot and oci", "1 s", times["layers"], 1.0, "s"),
        Limit("one file changed, all outputs", "3 x sha256sum of root.tar.zst", times["all"], 3 * times["sha256sum"], "s"),
        Limit("peak memory of a build", "512 MiB", memory / MIB, 512, "MiB"),
        Limit("peak disk of a cold build", "raw image + outputs", disk / MIB, (raw_size + outputs_size) / MIB, "MiB"),
    ]


def table(header, rows):
    """A Markdown table, aligned; the first column to the left and numbers to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [bool(rows) and all(row[at][:1].isdigit() or row[at] == "" for row in rows) for at in range(len(header))]

    def line(row):
        padded = (text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if right else "-") for w, right in zip(widths, numeric)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def measured_table(rows):
    """The table of measured rows: (name, Measured or None, runs); `runs` says of how many runs the fastest is shown."""
    lines = []
    for name, it, runs in rows:
        lines.append([name, f"{it.wall:.2f}", f"{it.cpu:.2f}", f"{it.memory / MIB:.0f}", f"{it.others * 100:.0f} %", runs])
    return table(["what", "wall s", "CPU s", "memory MiB", "others", "runs"], lines)


def limits_table(judged):
    """The table of limits."""
    rows = []
    for it in judged:
        digits = 2 if it.unit == "s" else 0
        values = [f"{it.measured:.{digits}f} {it.unit}", f"{it.limit:.{digits}f} {it.unit}", f"{it.ratio:.2f}"]
        rows.append([it.name, it.how, *values, it.verdict])
    return table(["what", "limit", "measured", "at most", "ratio", "verdict"], rows)
