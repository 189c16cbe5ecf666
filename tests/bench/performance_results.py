"""What the benchmarks have written, and how numbers are shown to people."""
import json
import time


class Results:
    def __init__(self, directory):
        self.programs = {}
        for file in sorted(directory.glob("*.json")):
            self.programs[file.stem] = json.loads(file.read_text())
        for needed in ("peers", "thumbnails"):
            if needed not in self.programs:
                raise SystemExit(f"{directory} has no {needed}.json: run ./dev bench --page, without names")
        of = {name: all_.get("commit", "unknown") for name, all_ in self.programs.items()}
        if len(set(of.values())) > 1:
            raise SystemExit(f"{directory} has figures of several commits: run ./dev bench --page, without names\n" +
                             "\n".join(f"  {name}.json: {commit}" for name, commit in of.items()))
        self.commit = of["peers"]

    def measured(self):
        """From when to when."""
        first, last = (when(all_.get("measured", 0) for all_ in self.programs.values()) for when in (min, max))

        def told(at):
            return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))

        if not first:
            return "unknown"
        return told(first) + (f" to {told(last)}" if told(first) != told(last) else "") + " UTC"

    def of(self, work):
        """All that did this work."""
        program = "thumbnails" if work == "thumbnails" else "peers"
        return [r for r in self.programs[program]["results"] if r["work"] == work]

    def one(self, work, who):
        return next(r for r in self.of(work) if r["who"] == who)

    def figure(self, program, part_of_name):
        figures = self.programs.get(program, {}).get("figures") or []
        return next((f for f in figures if part_of_name in f["name"]), None)

    def named(self, program, name):
        """The figure of just this name, where others' names contain it."""
        figures = self.programs.get(program, {}).get("figures") or []
        return next((f for f in figures if f["name"] == name), None)


def number(value):
    """Three digits that mean something, thousands apart."""
    if value == 0:
        return "0"
    for digits, least in ((0, 100), (1, 10), (2, 0.1), (3, 0)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return str(value)


def duration(microseconds):
    if microseconds is None:
        return ""
    for unit, factor in (("s", 1e6), ("ms", 1e3), ("µs", 1)):
        if microseconds >= factor:
            return f"{number(microseconds / factor)} {unit}"
    return f"{number(microseconds * 1e3)} ns" if microseconds < 0.1 else f"{microseconds:.2f} µs"


def rate(per_second):
    for unit, factor in ((" M/s", 1e6), (" k/s", 1e3)):
        if per_second >= factor:
            return f"{number(per_second / factor)}{unit}"
    return f"{number(per_second)} /s"


def size(kilobytes):
    return f"{number(kilobytes / 1024)} MiB" if kilobytes >= 1024 else f"{kilobytes:.0f} kB"


def times(ratio):
    if not ratio:
        return ""
    return f"{number(ratio)} ×" if ratio >= 0.01 else f"{ratio:.4f} ×"


def table(header, rows, alignment):
    rule = {"l": "---", "r": "---:"}
    lines = [header, [rule[each] for each in alignment], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
