"""Reads requirements.txt: the packages of each environment with their hashes, and what else is pinned there by comment lines.

The file has sections, each headed by a line `# == NAME ==`. Sections named `packages NAME` are what pip reads; in the
others every line is a comment `# NAME VERSION KEY=VALUE...` about something that no package index carries. Nothing that a
suite, the kind leg or a workflow downloads is pinned anywhere else.
"""

import pathlib
import re

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "requirements.txt"
HEADING = re.compile(r"# == (.+) ==")


def section(name: str) -> str:
    """The text of a section, without its heading."""
    lines: list[str] = []
    inside = found = False
    for line in REQUIREMENTS.read_text().splitlines():
        heading = HEADING.fullmatch(line)
        if heading:
            inside = heading[1] == name
            found = found or inside
        elif inside:
            lines.append(line)
    if not found:
        raise LookupError(f"{REQUIREMENTS} has no section {name}")
    return "\n".join(lines).strip() + "\n"


def packages(environment: str) -> str:
    """What pip reads for an environment: every package that is installed, with its version and its hashes."""
    return section(f"packages {environment}")


def pinned(kind: str, name: str) -> dict[str, str]:
    """A program, chart, manifest or image: its `version`, and whatever else its line says."""
    for line in section(kind).splitlines():
        words = line.removeprefix("#").split()
        if len(words) >= 2 and words[0] == name:
            return {"version": words[1], **dict(word.split("=", 1) for word in words[2:])}
    raise LookupError(f"{name} is not pinned among the {kind} of {REQUIREMENTS}")


def image(name: str) -> str:
    """An image with its tag, and its digest where one is pinned."""
    found = pinned("images", name)
    digest = found.get("digest")
    return f"{name}:{found['version']}" + (f"@{digest}" if digest else "")
