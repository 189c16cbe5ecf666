#!/usr/bin/env python3
"""Shows a header to Doxygen: the project's plain comments become documentation comments.

A comment block in front of a declaration documents it, one behind a declaration on its line documents that, with the
lines below it that hold nothing but comments at the same column; the first block of a file documents the file. A
comment inside a function's body stays what it is, since Doxygen looks at declarations only.
"""
import re
import sys


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


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    text = c_comments(text) if sys.argv[1].endswith(".h") else cpp_comments(text)
    text = re.sub(r"(?m)^(\s*///.*?)#include", r"\1\\#include", text)  # or it is taken for a link
    # Two things that Doxygen does not understand: a specialisation of another library's template, and a template that
    # inherits from itself.
    text = re.sub(r"(?m)^template <>\nstruct boost::[^;]*;", "", text)
    text = re.sub(r" : function_traits<[^{]*> \{\};", " {};", text)
    # The first block is about the file.
    if sys.argv[1].endswith(".h"):
        text = re.sub(r"\A\s*/\*\*", "/** \\\\file\n *", text, count=1)
    elif text.startswith("///"):
        text = "/// \\file\n" + text
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
