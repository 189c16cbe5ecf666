#!/usr/bin/env python3
"""Whether docs/threats.md has a row for each threat, 1 to 64, and the tests that it names are there.

The last cell of a row: `file`: name; name; `file`: name. A name stands in that file of tests/. Or: none: why there is none.
"""
import pathlib
import re
import sys

tests = pathlib.Path(__file__).resolve().parents[1]
page = tests.parent / "docs/threats.md"


def missing(cell):
    if re.match(r"none: \S", cell):
        return
    text = None
    for part in re.split(r"; ", cell):
        file, name = re.fullmatch(r"(?:`([^`]+)`: )?(.+)", part).groups()
        if file:
            path = tests / file
            text = path.read_text(encoding="utf-8") if path.is_file() else None
            if text is None:
                yield f"there is no tests/{file}"
        if text is None:
            continue
        words = {m.group(1) for m in re.finditer(r'"((?:[^"\\]|\\.)*)"', text)} | set(re.findall(r"\w+", text))
        # A name may go on behind a "; ": then the parts are in one literal.
        if not any(name in word for word in words):
            yield f"tests/{file or ''}... has no '{name}'"


def main():
    found, wrong = [], []
    for line in page.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\d+) \|.*\| (.+) \|$", line)
        if row:
            found.append(int(row[1]))
            wrong += [f"threat {row[1]}: {each}" for each in missing(row[2])]
    if found != list(range(1, 65)):
        wrong.append(f"the threats are not 1 to 64, each once: {found}")
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
