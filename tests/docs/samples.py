#!/usr/bin/env python3
"""Compiles every C and C++ sample of the README and of docs/, against an installed bulkhead.

    samples.py PREFIX

A sample that is a whole file (it includes something) is compiled as it stands; any other is a few lines from the middle of
a program, and is compiled as a function's body, behind prelude.hpp, which has the names that such lines take as given. One
that begins with `plugin.` is from a plugin's body. … stands for code that is left out. Pages below docs/tutorials/ are
followed instead: follow.py.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

from follow import blocks

root = pathlib.Path(__file__).resolve().parents[2]
here = pathlib.Path(__file__).resolve().parent


def as_file(text, number):
    text = text.replace("…", "{}")
    if any(whole in text for whole in ("int main(", "BULKHEAD_PLUGIN(", "TEST_CASE(")):
        return text
    includes = "".join(line + "\n" for line in text.splitlines() if line.startswith("#include"))
    text = "".join(line + "\n" for line in text.splitlines() if not line.startswith("#include"))
    side = "plugin" if text.startswith("plugin.") else "application"
    given = "bulkhead::plugin_definition& plugin" if side == "plugin" else "bulkhead::host& host"
    # A sample that makes its own host means that one.
    if "bulkhead::host host" in text:
        given = ""
    return (f'#define SAMPLE_OF_{side.upper()}\n#include "{here}/prelude.hpp"\n{includes}'
            f"void sample_{number}({given}) {{\n{text}}}\n")


def main():
    prefix = pathlib.Path(sys.argv[1])
    pkg_config = str(next(prefix.rglob("bulkhead.pc")).parent)
    flags = subprocess.run(["pkg-config", "--cflags", "bulkhead", "bulkhead-sdk"], check=True, text=True, stdout=subprocess.PIPE,
                           env={**os.environ, "PKG_CONFIG_PATH": pkg_config}).stdout.split()
    bad = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
            for line, language, name, text in blocks(page.read_text(encoding="utf-8")):
                if language not in ("c", "cpp"):
                    continue
                count += 1
                file = pathlib.Path(folder, f"sample_{count}.{language}")
                file.write_text(as_file(text, count) if language == "cpp" else text.replace("…", ""), encoding="utf-8")
                compiler = (["cc", "-std=c11", "-D_GNU_SOURCE"] if language == "c" else ["c++", "-std=c++20"])
                made = subprocess.run([*compiler, "-fsyntax-only", "-Wall", "-Wno-unused", *flags, str(file)], text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
                if made.returncode != 0:
                    bad += 1
                    print(f"{page.relative_to(root)}:{line}: this sample does not compile:\n{text}\n{made.stdout}", flush=True)
    print(f"{count} samples, {bad} of them bad")
    return 1 if bad or count < 5 else 0


if __name__ == "__main__":
    sys.exit(main())
