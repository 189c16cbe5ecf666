#!/usr/bin/env python3
"""Writes the results of the escape suite into docs/security.md, between its two marks. Run it as root, so that the
situations of an ordinary user are among them; those write to the same file.

  rm -f /tmp/table.tsv; install -m 666 /dev/null /tmp/table.tsv
  BULKHEAD_ESCAPE_TABLE=/tmp/table.tsv build/dev/bin/test_escape
  tests/isolation/escape/make_table.py /tmp/table.tsv docs/security.md
"""
import collections
import platform
import re
import sys


def main():
    table, document = sys.argv[1:]
    results = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    failed, impossible = 0, {}
    for line in open(table, encoding="utf-8"):
        level, family, _, layer, got, verdict = line.rstrip("\n").split("\t")
        if verdict == "not possible":
            impossible[family] = got
        elif layer:
            results[level][family][layer] += 1
            failed += verdict != "held"
    def stopped_by(layers):
        return ", ".join(f"{layer} {count}" for layer, count in layers.most_common())

    lines = [f"Linux {platform.release()}, {platform.machine()}. With all layers, of each kind:", ""]
    lines += ["| attempts | made | stopped by |", "|---|---:|---|"]
    for family, layers in results["full"].items():
        lines.append(f"| {family} | {layers.total()} | {stopped_by(layers)} |")
    lines += [f"| {family} | none | not tried: {why} |" for family, why in impossible.items()]
    lines += ["", "In each situation, all kinds together:", ""]
    lines += ["| situation | made | stopped by |", "|---|---:|---|"]
    for level, families in results.items():
        layers = sum(families.values(), collections.Counter())
        lines.append(f"| {level} | {layers.total()} | {stopped_by(layers)} |")
    distinct = sum(layers.total() for layers in results["full"].values())
    total = sum(layers.total() for families in results.values() for layers in families.values())
    lines += ["", f"{distinct} distinct attempts with all layers, {total} in all situations; {failed} were not stopped by",
              "the layer that was expected to."]
    text = open(document, encoding="utf-8").read()
    marks = r"(<!-- escape suite: begin -->\n).*(<!-- escape suite: end -->)"
    text, count = re.subn(marks, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)
    if count != 1:
        sys.exit(f"{document} has no marks for the table")
    open(document, "w", encoding="utf-8").write(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
