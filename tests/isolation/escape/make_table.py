#!/usr/bin/env python3
"""Writes the results of the escape suite into docs/security.md, between its two marks.

  rm -f table.tsv; BULKHEAD_ESCAPE_TABLE=$PWD/table.tsv build/dev/bin/test_escape
  tests/isolation/escape/make_table.py table.tsv docs/security.md
"""
import collections
import platform
import re
import sys


def main():
    table, document = sys.argv[1:]
    results = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    failed = 0
    for line in open(table, encoding="utf-8"):
        level, family, _, layer, _, verdict = line.rstrip("\n").split("\t")
        if layer:
            results[level][family][layer] += 1
            failed += verdict != "held"
    lines = [f"Linux {platform.release()}, {platform.machine()}.", ""]
    lines += ["| situation | attempts on | made | stopped by |", "|---|---|---:|---|"]
    total = 0
    for level, families in results.items():
        for family, layers in families.items():
            made = sum(layers.values())
            total += made
            by = ", ".join(f"{layer} {count}" for layer, count in layers.most_common())
            lines.append(f"| {level} | {family} | {made} | {by} |")
    distinct = sum(sum(layers.values()) for layers in results["full"].values())
    lines += ["", f"{distinct} distinct attempts with all layers, {total} in all situations; {failed} were not stopped by the "
                  "layer that was expected to."]
    text = open(document, encoding="utf-8").read()
    marks = r"(<!-- escape suite: begin -->\n).*(<!-- escape suite: end -->)"
    text, count = re.subn(marks, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)
    if count != 1:
        sys.exit(f"{document} has no marks for the table")
    open(document, "w", encoding="utf-8").write(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
