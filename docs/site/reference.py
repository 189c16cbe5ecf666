#!/usr/bin/env python3
"""Makes the reference: shows the headers that are installed to Doxygen, which fails on a public name without documentation.

    reference.py                   the pages, in build/docs/site/reference
    reference.py --check [PREFIX]  no pages; with PREFIX, the headers installed there have to be those of the reference

The project's plain comments become documentation comments in what Doxygen sees, all of it made by this one process:

A comment block in front of a declaration documents it, one behind a declaration on its line documents that, with the
lines below it that hold nothing but comments at the same column; the first block of a file documents the file. A
comment inside a function's body stays what it is, since Doxygen looks at declarations only.
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

root = pathlib.Path(__file__).resolve().parents[2]

# The first page. What stands in a namespace and in no class is shown with it only if that has a text, too.
front = r"""/** \mainpage The public headers
 *
 * Guides, tutorials and the protocol are on <a href="../index.html">the other pages</a>. To begin with, for applications:
 *
 * - bulkhead/host.hpp: loads plugins; bulkhead/plugin.hpp: calls them; bulkhead/policy.hpp: what they may do;
 *   bulkhead/supervision.hpp: how they are kept running; bulkhead/crash_report.hpp: what they died of
 * - bulkhead/process.hpp: child processes; bulkhead/cluster.hpp and bulkhead/node_cluster.hpp: many that serve one port
 * - bulkhead/host.h: all of the host in C
 *
 * For plugins:
 *
 * - bulkhead/sdk.hpp: in C++; bulkhead/sdk/context.hpp: what a method knows of its call; bulkhead/testing.hpp: tests
 * - bulkhead/plugin.h: in C, or any language that can do what C does
 *
 * \namespace bulkhead
 * All that applications and plugins use.
 * \namespace bulkhead::ipc
 * The channel: what of it the other headers need.
 * \namespace bulkhead::test
 * What a plugin's tests use.
 */
"""


def c_comments(text):
    """/* ... */ as in plugin.h, where one behind code documents what stands before it."""
    out, at = [], 0
    for found in re.finditer(r"/\*(?![*!<]).*?\*/", text, re.S):
        line = text[text.rfind("\n", 0, found.start()) + 1:found.start()]
        body = found.group()[2:]
        out.append(text[at:found.start()])
        if not re.fullmatch(r"\s*-{3,}.*-{3,}\s*\*/", body):  # a ruler between sections documents nothing
            out.append(("/**<" if line.strip() else "/**") + body)
        at = found.end()
    return "".join(out) + text[at:]


def cpp_comments(text):
    out, behind = [], None  # behind: the column of a comment behind code that may go on below
    for line in text.split("\n"):
        alone = re.match(r"^(\s*)//(?!/)\s?(.*)$", line)
        after = re.match(r'^((?:[^"/]|"(?:[^"\\]|\\.)*"|/(?!/))*\S)(\s+)//(?!/)\s?(.*)$', line)
        if alone and re.fullmatch(r"\s*-{3,}.*-{3,}\s*", alone[2]):
            out.append("")  # a ruler between sections documents nothing
            behind = None
        elif alone and behind is not None and len(alone[1]) == behind:
            out.append(f"{alone[1]}///< {alone[2]}")
        elif alone:
            out.append(f"{alone[1]}/// {alone[2]}")
            behind = None
        elif after and re.fullmatch(r"\s*(class|struct|union)\s+[\w:]+;", after[1]):
            out.append(after[1])  # says where it is declared, not what it is
            behind = None
        elif after and not after[1].lstrip().startswith("#"):
            # Doxygen takes it for what was declared last on the line: right, as long as it stands behind the code.
            out.append(f"{after[1]}{after[2]}///< {after[3]}")
            behind = len(after[1] + after[2])
        else:
            out.append(line)
            behind = None
    return "\n".join(out)


def seen_by_doxygen(name, text):
    text = c_comments(text) if name.suffix == ".h" else cpp_comments(text)
    text = re.sub(r"(?m)^(\s*///.*?)#include", r"\1\\#include", text)  # or it is taken for a link
    # Two things that Doxygen does not understand: a specialisation of another library's template, and a template that
    # inherits from itself.
    text = re.sub(r"(?m)^template <>\nstruct boost::[^;]*;", "", text)
    text = re.sub(r" : function_traits<[^{]*> \{\};", " {};", text)
    # The first block is about the file.
    if name.suffix == ".h":
        return re.sub(r"\A\s*/\*\*", "/** \\\\file\n *", text, count=1)
    return "/// \\file\n" + text if text.startswith("///") else text


def installed_headers():
    """Where each is in the tree, by its name below include/, as cmake/install.cmake has it."""
    private = re.search(r'REGEX "(.*)" EXCLUDE', (root / "cmake/install.cmake").read_text())[1].replace("\\\\", "\\")
    found = {}
    for part in "plugin_api", "sdk", "host", "ipc":
        for file in sorted((root / part / "include").rglob("*.h*")):
            if not re.search(private, str(file)):
                found[file.relative_to(root / part / "include")] = file
    return found


def silent_enumerators(xml_folder):
    """Doxygen does not warn of these."""
    for file in sorted(xml_folder.glob("*.xml")):
        for enum in xml.etree.ElementTree.parse(file).iterfind(".//memberdef[@kind='enum']"):
            for value in enum.iterfind("enumvalue"):
                if not "".join(value.itertext()).strip().removeprefix(value.findtext("name")):
                    yield f"{enum.find('location').get('file')}: enumerator {enum.findtext('name')}::{value.findtext('name')} is not documented"


def main():
    check = sys.argv[1:2] == ["--check"]
    headers = installed_headers()
    if len(sys.argv) > 2:
        there = {file.relative_to(f"{sys.argv[2]}/include") for file in pathlib.Path(sys.argv[2], "include").rglob("*.h*")}
        if there != headers.keys():
            sys.exit(f"installed or in the reference, but not both: {sorted(map(str, there ^ headers.keys()))}")
    with tempfile.TemporaryDirectory() as folder:
        for name, file in headers.items():
            to = pathlib.Path(folder, "include", name)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(seen_by_doxygen(name, file.read_text(encoding="utf-8")), encoding="utf-8")
        pathlib.Path(folder, "include/front.dox").write_text(front, encoding="utf-8")
        settings = (root / "docs/site/Doxyfile").read_text()
        settings += f"\nINPUT = {folder}/include\nSTRIP_FROM_PATH = {folder}/include\nSTRIP_FROM_INC_PATH = {folder}/include\n"
        settings += f"GENERATE_XML = YES\nXML_OUTPUT = {folder}/xml\nXML_PROGRAMLISTING = NO\n"
        if check:
            settings += f"GENERATE_HTML = NO\nOUTPUT_DIRECTORY = {folder}\n"
        made = subprocess.run(["doxygen", "-"], input=settings, text=True, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # One line more than the header has: the one that says that its first comment is about the file.
        said = re.sub(rf"(?m)^{folder}/include/(.*?):(\d+):",
                      lambda at: f"{headers[pathlib.Path(at[1])].relative_to(root)}:{int(at[2]) - 1}:", made.stdout)
        silent = list(silent_enumerators(pathlib.Path(folder, "xml")))
    print(said, *silent, sep="\n")
    sys.exit(made.returncode != 0 or bool(silent))


if __name__ == "__main__":
    main()
