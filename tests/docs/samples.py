#!/usr/bin/env python3
"""Compiles every C and C++ sample of the README and of docs/ against an installed bulkhead, and runs those that are whole.

    samples.py PREFIX

A sample that is a whole file (it includes something) is compiled as it stands; any other is a few lines from the middle of
a program, and is compiled as a function's body, behind prelude.hpp, which has the names that such lines take as given. One
that begins with `plugin.` is from a plugin's body. … stands for code that is left out. Plugins that are whole are built and
described by their worker; the README's application is run beside the README's plugin. TOML is read by `bulkhead run --check`,
and commands must have the options that their --help names. Pages below docs/tutorials/ are followed instead: follow.py.
"""
import os
import pathlib
import re
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


class checker:
    def __init__(self, prefix, folder):
        self.prefix, self.folder = prefix, pathlib.Path(folder)
        self.folder.chmod(0o755)  # workers of a host that is root run as nobody
        self.library = next(prefix.rglob("libbulkhead.so")).parent
        self.plugins = next(prefix.rglob("echo.so")).parent
        self.env = {**os.environ, "PKG_CONFIG_PATH": str(self.library / "pkgconfig"), "LD_LIBRARY_PATH": str(self.library)}
        self.flags = self.output("pkg-config", "--cflags", "bulkhead", "bulkhead-sdk").split()
        self.bad = self.count = 0
        self.helps = {}

    def run(self, *command):
        return subprocess.run([str(word) for word in command], cwd=self.folder, env=self.env, text=True, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def output(self, *command):
        return self.run(*command).stdout

    def expect(self, where, what, *command):
        made = self.run(*command)
        if made.returncode != 0:
            self.bad += 1
            print(f"{where}: {what}:\n{made.stdout}", flush=True)
        return made

    def code(self, where, language, text):
        file = self.folder / f"sample_{self.count}.{language}"
        file.write_text(as_file(text, self.count) if language == "cpp" else text.replace("…", ""), encoding="utf-8")
        compiler = ["cc", "-std=c11", "-D_GNU_SOURCE"] if language == "c" else ["c++", "-std=c++20"]
        compiler += ["-Wall", "-Wno-unused", *self.flags]
        if "BULKHEAD_PLUGIN(" in text:
            name = text.split('BULKHEAD_PLUGIN("')[1].split('"')[0]
            if self.expect(where, f"this plugin can't be built:\n{text}", *compiler, "-shared", "-fPIC", file, "-o",
                           f"{name}.so").returncode == 0:
                self.expect(where, f"this plugin does not start:\n{text}", self.prefix / "bin/bulkhead", "inspect",
                            f"./{name}.so")
        elif 'host.load("stats.so"' in text and "int main(" in text:  # the README's, for the plugin before it
            if self.expect(where, f"this application can't be built:\n{text}", *compiler, file, "-o", "application",
                           f"-L{self.library}", "-lbulkhead").returncode == 0:
                made = self.expect(where, f"this application fails:\n{text}", "./application")
                if made.stdout != "3\n":
                    self.bad += 1
                    print(f"{where}: this application printed '{made.stdout}', wanted: 3", flush=True)
        else:
            self.expect(where, f"this sample does not compile:\n{text}", *compiler, "-fsyntax-only", file)

    def configuration(self, where, text):
        file = self.folder / "daemon.toml"
        file.write_text(text.replace("/usr/local/lib/bulkhead/plugins", str(self.plugins)), encoding="utf-8")
        self.expect(where, f"this configuration is refused:\n{text}", self.prefix / "bin/bulkhead", "run", "--check", file)

    def command(self, where, name, words):
        if name not in self.helps:
            made = self.expect(where, f"there is no command bulkhead {name}", self.prefix / "bin/bulkhead", name, "--help")
            self.helps[name] = set(option.findall(made.stdout))
        for each in option.findall(words.split(" -- ")[0]):
            if each not in self.helps[name]:
                self.bad += 1
                print(f"{where}: bulkhead {name} has no option {each}", flush=True)


option = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# In running text and in blocks of commands, which may have the path of the program.
command = re.compile(r"(?:^|[`|/ ])bulkhead ([a-z]+)((?: [^`\n|#]*)?)", re.M)


def main():
    with tempfile.TemporaryDirectory(prefix="bulkhead-samples-") as folder:
        check = checker(pathlib.Path(sys.argv[1]).resolve(), folder)
        for page in [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "docs/tutorials").glob("*.md"))]:
            whole = page.read_text(encoding="utf-8")
            of = page.relative_to(root)
            for line, language, _, text in blocks(whole) if page.parent.name != "tutorials" else []:
                check.count += 1
                if language in ("c", "cpp"):
                    check.code(f"{of}:{line}", language, text)
                elif language == "toml":
                    check.configuration(f"{of}:{line}", text)
            spans = re.findall(r"`bulkhead [^`]*`", whole.replace("\n", " "))
            lines = [each for _, language, _, text in blocks(whole) if language == "sh" for each in text.splitlines()]
            for each in [*spans, *lines]:
                for found in command.finditer(each):
                    check.command(of, found[1], found[2])
    print(f"{check.count} samples, {check.bad} faults")
    return 1 if check.bad or check.count < 20 or len(check.helps) < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
