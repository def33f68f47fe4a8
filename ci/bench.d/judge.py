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


def factor(ratio):
    """The verdict on how many times as good as its floor something is."""
    if ratio >= 1:
        return "met"
    return "missed, within a third" if ratio * FLOOR >= 1 else "MISSED"


def served_table(rows, loads, broken):
    """The table of ci/bench serve, and how many of its lines failed. `rows` compare with a peer (more is better), `loads`
    with a limit (less is better), `broken` are rows that could not be measured, with why."""
    lines, failed = [], 0

    def line(*cells):
        nonlocal failed
        failed += cells[-1] in ("MISSED", "FAILED")
        lines.append(list(cells))

    for it in rows:
        peer = f"{it.peer_name} {it.peer:,.0f}" + (f" ({it.note})" if it.note else "")
        verdict = factor(it.ours / it.peer / it.floor)
        line(f"{it.name}, {it.unit}", f"{it.ours:,.0f}", f"{it.cold:,.0f}", peer, f"{it.ours / it.peer:.2f}",
             f"{it.floor:.2f}", verdict)
    for it in loads:
        digits = 2 if it.unit == "" and it.limit else 0
        ratio = it.limit / it.measured if it.measured else 1.0
        name = f"{it.name}: {it.what}" + (f", {it.unit}" if it.unit else "")
        line(name, f"{it.measured:.{digits}f}", "", "", "", f"at most {it.limit:.{digits}f}",
             factor(ratio) if it.limit else ("met" if it.measured == 0 else "MISSED"))
    for name, why in broken:
        line(name, "", "", "", "", "", "FAILED")
        lines[-1][3] = why.splitlines()[0][:60].replace("|", "/")
    return table(["row", "ours", "ours, cold", "peer", "ratio", "floor", "verdict"], lines), failed
