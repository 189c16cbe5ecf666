#!/usr/bin/env python3
"""Whether bulkhead.toml(5) and docs/daemon.md or the pages that it refers to have each key that the configuration is read
for, and bulkhead(1) or bulkhead-worker(8) each variable of the environment that a program of bulkhead's reads."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parents[2]
host, pages = root / "host", root / "docs"


def texts(*folders, suffix=".cpp"):
    return "\n".join(file.read_text(encoding="utf-8") for folder in folders for file in sorted(folder.rglob(f"*{suffix}")))


def printed(page):  # the words in bold
    return set(re.findall(r"\\fB\[?\.?([\w-]+)", page.replace("\\-", "-").replace("\\\\fB", "\\fB")))


def main():
    readers = r'\b(?:text|flag|duration|size|real|number|choice|list|table|node|get)\(\s*"([a-z_0-9]+)"'
    keys = set(re.findall(readers, texts(host / "daemon/config")))
    grants = set(re.findall(r'key == "([a-z-]+)"', (host / "src/sandbox/policy_text.cpp").read_text(encoding="utf-8")))
    read_here = [host / folder for folder in ("src", "worker", "daemon", "cli", "c_api", "symbolizer")] + [root / "ipc", root / "sdk"]
    variables = set(re.findall(r'(?:getenv|take_descriptor)\("(\w+)"', texts(*read_here) + texts(root / "sdk", suffix=".hpp")))
    if len(keys) < 50 or len(grants) < 20 or len(variables) < 20:
        sys.exit(f"the sources are read in another way: {len(keys)} keys, {len(grants)} grants, {len(variables)} variables")

    configuration = printed((host / "cli/bulkhead.toml.5").read_text(encoding="utf-8"))
    environment = printed((host / "cli/manual.cpp").read_text() + (host / "cli/bulkhead-worker.8").read_text())
    linked = "".join((pages / f"{page}.md").read_text(encoding="utf-8")
                     for page in ("daemon", "security", "supervision", "blobs", "lanes"))
    wrong = [f"bulkhead.toml(5) has no key {each}" for each in sorted((keys | grants) - configuration)]
    wrong += [f"docs/daemon.md and what it refers to have no key {each}" for each in sorted(keys) if not re.search(rf"\b{each}\b", linked)]
    wrong += [f"bulkhead(1) and bulkhead-worker(8) have no variable {each}" for each in sorted(variables - environment)]
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
