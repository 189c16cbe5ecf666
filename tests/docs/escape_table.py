#!/usr/bin/env python3
"""Whether the table of the escape suite counts what was tried, and says what could not be."""
import pathlib
import subprocess
import sys
import tempfile

maker = pathlib.Path(__file__).resolve().parents[1] / "isolation/escape/make_table.py"
marks = "before\n<!-- escape suite: begin -->\nold\n<!-- escape suite: end -->\nafter\n"
held = [("full", "files", "root"), ("full", "files", "root"), ("full", "files", "seccomp"), ("full", "files", ""),
        ("no Landlock", "files", "root")]
impossible = "full\tsystem calls by i386 number\t\t\t`int 0x80` is no system call\tnot possible\n"


def made(lines):
    with tempfile.TemporaryDirectory() as folder:
        table, document = pathlib.Path(folder, "table.tsv"), pathlib.Path(folder, "page.md")
        table.write_text(lines, encoding="utf-8")
        document.write_text(marks, encoding="utf-8")
        status = subprocess.run([sys.executable, maker, table, document], check=False).returncode
        return document.read_text(encoding="utf-8"), status


results = "".join(f"{level}\t{family}\tname\t{layer}\tEPERM\theld\n" for level, family, layer in held)
page, status = made(results + impossible)
assert status == 0, status
for line in ["| files | 3 | root 2, seccomp 1 |",
             "| system calls by i386 number | none | not tried: `int 0x80` is no system call |",
             "| full | 3 | root 2, seccomp 1 |", "| no Landlock | 1 | root 1 |",
             "3 distinct attempts with all layers, 4 in all situations; 0 were not stopped by"]:
    assert line in page.splitlines(), f"no '{line}' in:\n{page}"
assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page, page
assert "not tried" not in made(results)[0]
assert made(results + "full\tfiles\tname\troot\tok\tFAILED\n")[1] == 1
