#!/usr/bin/env python3
"""Compiles the samples of the README and of docs/ against an installed bulkhead, and runs those that can be.

    samples.py PREFIX

C++: whole programs are built and run, plugins are built and described by their worker, tests are linked with Catch and run.
Any other sample is a few lines from the middle of a program; each is compiled and linked as a function's body, behind
prelude.hpp, which has the names that such lines take as given. One that begins with `plugin.` is from a plugin's body.
… stands for code that is left out. JavaScript is run by node, TOML read by `bulkhead run --check`, CMake configured. Of shell
commands, those of bulkhead are run; wherever pages name one, it must have the options that its --help names. What samples
take from their surroundings, and what they must print, is in surroundings.py.

Pages below docs/tutorials/ are followed instead, and so is docs/c-api.md: follow.py.
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import surroundings
from follow import blocks

root = pathlib.Path(__file__).resolve().parents[2]
here = pathlib.Path(__file__).resolve().parent
TIME_LIMIT = 300  # seconds for one command


class checker:
    def __init__(self, prefix, folder):
        self.prefix, self.folder = prefix, pathlib.Path(folder)
        self.library = next(prefix.rglob("libbulkhead.so")).parent
        self.plugins = next(prefix.rglob("echo.so")).parent
        self.places = surroundings.make(self.folder, root, self.plugins)
        self.env = {**os.environ, "PATH": f"{prefix}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(self.library),
                    "PKG_CONFIG_PATH": str(self.library / "pkgconfig"), "CMAKE_PREFIX_PATH": str(prefix), "NO_COLOR": "1"}
        self.env.pop("BULKHEAD_PLUGIN_PATH", None)
        flags = self.run("pkg-config", "--cflags", "bulkhead", "bulkhead-sdk").stdout.split()
        self.compiler = ["c++", "-std=c++20", "-O0", "-Wall", "-Wno-unused", "-fPIC", *flags]
        self.with_host = [f"-L{self.library}", "-lbulkhead"]
        self.bad = self.count = 0
        self.helps = {}
        self.lines = {"application": [], "plugin": []}  # of the fragments of either side
        self.builds, self.runs = [], []                 # what is to be done, in this order
        self.unused = {*surroundings.prints, *surroundings.leaves, *surroundings.not_run, *self.places}

    def fault(self, text):
        self.bad += 1
        print(text, flush=True)

    def run(self, *command):
        return subprocess.run([str(word) for word in command], cwd=self.folder, env=self.env, text=True, timeout=TIME_LIMIT,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def expect(self, where, what, *command):
        made = self.run(*command)
        if made.returncode != 0:
            self.fault(f"{where}: {what}, exit status {made.returncode}:\n{made.stdout}")
        return made.stdout

    def known(self, table, text):
        """The entry of the table whose key is in the text, or None."""
        keys = [key for key in table if key in text]
        self.unused.difference_update(keys)
        return table[keys[0]] if keys else None

    def put_in_place(self, text):
        for name, place in self.places.items():
            if name in text:
                self.unused.discard(name)
                text = text.replace(name, place)
        return text

    def run_sample(self, where, text, serves, *command, status=0):
        """Runs a sample that ends by itself, or SERVES until it has printed what it must and is told to end."""
        wanted = self.known(surroundings.prints, text)
        if serves and wanted is None:
            return self.fault(f"{where}: surroundings.py does not say what this prints:\n{text}")
        if serves:
            code, printed = surroundings.serve(command, wanted, self.folder, self.env)
        else:
            made = self.run(*command)
            code, printed = made.returncode, made.stdout
        if code != status or wanted and wanted not in printed:
            return self.fault(f"{where}: exit status {code} of:\n{text}\nwhich is to print '{wanted}', and printed:\n{printed}")
        left = self.known(surroundings.leaves, text)
        if left and not (self.folder / left).exists():
            self.fault(f"{where}: there is no {left} after:\n{text}\nwhich printed:\n{printed}")
        return None

    def code(self, where, text):
        file = self.folder / f"sample_{self.count}.cpp"
        if not any(whole in text for whole in ("int main(", "BULKHEAD_PLUGIN(", "TEST_CASE(")):
            return self.fragment(where, text)
        file.write_text(self.put_in_place(text), encoding="utf-8")
        if "BULKHEAD_PLUGIN(" in text:
            plugin = text.split('BULKHEAD_PLUGIN("')[1].split('"')[0] + ".so"
            self.builds.append((where, *self.compiler, "-shared", file, "-o", plugin))
            self.runs.append(lambda: self.expect(where, f"{plugin} does not start", "bulkhead", "inspect", f"./{plugin}"))
            return None
        child = "from_environment(" in text  # a sample in JavaScript forks it
        program = "my-program" if child else file.stem
        self.builds.append((where, *self.compiler, file, "-o", program, *self.with_host))
        if not child and self.has_node(where, text):
            self.runs.append(lambda: self.run_sample(where, text, "sigwait(" in text, f"./{program}"))
        return None

    def fragment(self, where, text):
        side = "plugin" if text.startswith("plugin.") else "application"
        given = "bulkhead::plugin_definition& plugin" if side == "plugin" else "bulkhead::host& host"
        if "bulkhead::host host" in text:  # its own is meant
            given = ""
        page, line = where.split(":")
        text = re.sub(r"(?m)^(#include .*)$", lambda found: self.lines[side].insert(0, found[1]) or "", text)
        self.lines[side] += [f"void sample_{self.count}({given}) {{", f'#line {int(line) + 1} "{page}"', text.replace("…", "{}"), "}"]

    def build(self):
        for side, lines in self.lines.items():
            file = self.folder / f"{side}.cpp"
            file.write_text("\n".join([f"#define SAMPLE_OF_{side.upper()}", f'#include "{here}/prelude.hpp"', *lines, ""]))
            self.builds.append((f"what pages show of an {side}" if side == "application" else "what pages show of a plugin",
                                *self.compiler, "-shared", file, "-o", file.with_suffix(".parts"), "-Wl,-z,defs",
                                *(self.with_host if side == "application" else [])))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: self.expect(each[0], "does not compile", *each[1:]), self.builds))

    def skip(self, where, text, why):
        self.unused = {key for key in self.unused if key not in text}
        print(f"{where}: not run, {why}: {text.splitlines()[0]}")

    def has_node(self, where, text):
        if not re.search(r"\.js|require\(", text) or shutil.which("node"):
            return True
        self.skip(where, text, "there is no node")
        return False

    def script(self, where, text):
        file = self.folder / f"sample_{self.count}.js"
        file.write_text(text, encoding="utf-8")
        # The child keeps it alive; SIGTERM ends it.
        if self.has_node(where, text):
            self.runs.append(lambda: self.run_sample(where, text, True, "node", file, status=-15))

    def configuration(self, where, text):
        file = self.folder / f"daemon_{self.count}.toml"
        file.write_text(self.put_in_place(text), encoding="utf-8")
        self.runs.append(lambda: self.expect(where, "this configuration is refused", "bulkhead", "run", "--check", file))

    def project(self, where, text):
        if "find_package(bulkhead" not in text:
            text = "find_package(bulkhead REQUIRED)\n" + text
        project = "cmake_minimum_required(VERSION 3.22)\nproject(sample CXX)\n" + text

        def configure():
            # In one folder after another's project, so that the compiler is looked at once.
            (self.folder / "project/CMakeLists.txt").write_text(project, encoding="utf-8")
            self.expect(where, f"can't be configured:\n{text}", "cmake", "-S", "project", "-B", "project/build")
        self.runs.append(configure)

    def shell(self, where, text):
        exports = ""
        for line in text.splitlines():
            found = re.search(r"(?:^|[/ ])bulkhead ([a-z]+)(?: ([a-z]+)\b)?", line)
            if line.startswith("export "):
                exports += line + "\n"
            elif found and (why := self.known(surroundings.not_run, line)):
                self.skip(where, line, why)
            elif found and found[1] in ("call", "inspect", "cluster") and found[2] and not (self.plugins / f"{found[2]}.so").exists():
                self.skip(where, line, f"there is no plugin {found[2]}")
            elif found:
                serves = found[1] == "cluster"
                command = exports + "exec " * serves + self.put_in_place(line)
                self.runs.append(lambda line=line, serves=serves, command=command:
                                 self.run_sample(where, line, serves, "bash", "-eo", "pipefail", "-c", command))

    def options(self, where, name, words):
        if name not in self.helps:
            self.helps[name] = set(option.findall(self.expect(where, f"there is no command bulkhead {name}", "bulkhead", name, "--help")))
        for each in option.findall(words.split(" -- ")[0]):
            if each not in self.helps[name]:
                self.fault(f"{where}: bulkhead {name} has no option {each}")


option = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# In running text and in blocks of commands, which may have the path of the program.
command = re.compile(r"(?:^|[`|/ ])bulkhead ([a-z]+)((?: [^`\n|#]*)?)", re.M)
for_reading = ("", "text", "mermaid", "vectors", "refused")  # the last two: tests/protocol reads them


def main():
    with tempfile.TemporaryDirectory(prefix="bulkhead-samples-") as folder:
        check = checker(pathlib.Path(sys.argv[1]).resolve(), folder)
        kinds = {"cpp": check.code, "js": check.script, "toml": check.configuration, "cmake": check.project, "sh": check.shell}
        for page in [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "docs/tutorials").glob("*.md"))]:
            whole = page.read_text(encoding="utf-8")
            of = page.relative_to(root)
            followed = page.parent.name == "tutorials" or page.name == "c-api.md"
            for line, language, _, text in blocks(whole) if not followed else []:
                check.count += 1
                if language in kinds:
                    kinds[language](f"{of}:{line}", text)
                elif language not in for_reading:
                    check.fault(f"{of}:{line}: nothing tests samples in {language}")
            spans = re.findall(r"`bulkhead [^`]*`", whole.replace("\n", " "))
            lines = [each for _, language, _, text in blocks(whole) if language == "sh" for each in text.splitlines()]
            for each in [*spans, *lines]:
                for found in command.finditer(each):
                    check.options(of, found[1], found[2])
        check.build()
        if not check.bad:  # what was not built can't be run
            for each in check.runs:
                each()
            for each in sorted(check.unused):
                check.fault(f"surroundings.py has '{each}', which is in no sample")
    print(f"{check.count} samples, {check.bad} faults")
    return 1 if check.bad or check.count < 20 or len(check.helps) < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
