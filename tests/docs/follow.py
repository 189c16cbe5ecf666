#!/usr/bin/env python3
"""Follows a tutorial to the letter, as a reader would who trusts it: in an empty folder, from the first line to the last.

    follow.py PAGE.md [--keep DIR]

    ```cpp main.cpp      a block with a file name is written to that file
    ```sh                is run by bash, which stops at the first command that fails (`|| true` says it may)
    ```text              behind a sh block: what it prints, on both outputs; … stands for anything, also over lines
    ```                  and blocks of any other kind are for reading only

Prints each step; the first that goes otherwise than the page says ends it with the difference and exit status 1.
What the commands need (bulkhead's programs, CMAKE_PREFIX_PATH) comes from the environment.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

TIME_LIMIT = 300  # seconds for one block


def blocks(page):
    """(line, language, file name or '', text) of each fenced block."""
    fence = re.compile(r"^```([\w+-]*)[ \t]*([^\n`]*)\n(.*?)^```\s*$", re.M | re.S)
    for found in fence.finditer(page):
        yield page.count("\n", 0, found.start()) + 1, found[1], found[2].strip(), found[3]


def matches(expected, actual):
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, actual.strip(), re.S) is not None


def follow(page, folder):
    printed = None  # by the sh block just before
    unused = {}     # files that no command has had a chance to read yet, and where they were written
    for line, language, name, text in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{line}"
        if language == "text":
            if printed is not None and not matches(text, printed):
                return f"{where}: the page says that this is printed:\n{text}\nbut this was:\n{printed}"
            printed = None
        elif name:
            print(f"{where}: writes {name}", flush=True)
            if name in unused:
                return f"{where}: {name} is written again, and nothing was done with what {unused[name]} wrote"
            unused[name] = where
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            printed = None
        elif language == "sh":
            print(f"{where}: runs {text.strip().splitlines()[0]}", flush=True)
            try:
                run = subprocess.run(["bash", "-eo", "pipefail", "-c", text], cwd=folder, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT, check=False)
            except subprocess.TimeoutExpired:
                return f"{where}: still running after {TIME_LIMIT} s:\n{text}"
            printed = run.stdout.decode("utf-8", "replace")
            unused.clear()
            if run.returncode != 0:
                return f"{where}: exit status {run.returncode} of:\n{text}\nwhich printed:\n{printed}"
    if unused:
        return f"nothing is done with {', '.join(unused)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="work in DIR and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkhead-follow-") as scratch:
        folder = options.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # workers of a host that is root run as nobody, who is to read what is granted there
        wrong = follow(options.page, folder.resolve())
    if wrong:
        print(wrong)
        return 1
    print(f"{options.page.name}: all of it works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
