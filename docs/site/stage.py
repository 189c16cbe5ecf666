#!/usr/bin/env python3
"""Lays out in build/docs/pages what mkdocs makes the site of: the pages of docs/, the README as its front page, and
mermaid for diagrams. Links that lead out of docs/ are turned to where the site has their target, or become plain text;
the file that a block of code is to be written to becomes its title."""
import pathlib
import re
import shutil
import sys

root = pathlib.Path(__file__).resolve().parents[2]
pages = root / "build/docs/pages"


def relink(text, depth):
    up = "../" * depth

    def target(found):
        label, link = found[1], found[2]
        if re.match(r"[a-z]+:|#", link):
            return found[0]
        path, _, anchor = link.partition("#")
        anchor = "#" + anchor if anchor else ""
        path = re.sub(r"^(\.\./)+", "", path) if path.startswith("../") and depth == 0 else path
        if path.startswith("docs/"):
            return f"[{label}]({path.removeprefix('docs/')}{anchor})"
        if path.endswith((".h", ".hpp")):
            name = pathlib.PurePath(path).name.replace("_", "__").replace(".", "_8") + ".html"
            (pages / "reference" / name).touch()
            return f"[{label}]({up}reference/{name})"
        return label if link.startswith("../" * (depth + 1)) else found[0]

    text = re.sub(r"(?m)^```([\w+-]+)[ \t]+([\w./-]+)$", r'```\1 title="\2"', text)
    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", target, text)


def main():
    shutil.rmtree(pages, ignore_errors=True)
    # mkdocs checks that what is linked to is there; Doxygen writes these files, into the site, afterwards.
    (pages / "reference").mkdir(parents=True)
    (pages / "reference/index.html").touch()
    for file in sorted((root / "docs").rglob("*")):
        inside = file.relative_to(root / "docs")
        if file.is_dir() or inside.parts[0] == "site":
            continue
        to = pages / inside
        to.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            to.write_text(relink(file.read_text(encoding="utf-8"), len(inside.parts) - 1), encoding="utf-8")
        else:
            shutil.copy(file, to)
    if not (pages / "performance.md").exists():  # made by measuring, on a machine with nothing else to do
        (pages / "performance.md").write_text("# Performance\n\n`./dev bench --page` measures, and writes this page.\n")
    front = (root / "README.md").read_text(encoding="utf-8").replace('src="docs/', 'src="').replace("](docs/images/", "](images/")
    (pages / "index.md").write_text(relink(front, 0), encoding="utf-8")
    mermaid = root / "docs/site/node_modules/mermaid/dist/mermaid.min.js"
    (pages / "javascripts").mkdir(exist_ok=True)
    shutil.copy(mermaid, pages / "javascripts/mermaid.min.js")
    shutil.copy(root / "docs/site/diagrams.js", pages / "javascripts/diagrams.js")
    shutil.copy(root / "docs/site/wide.css", pages / "wide.css")


if __name__ == "__main__":
    sys.exit(main())
