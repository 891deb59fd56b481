"""reStructuredText to Markdown-like text, without docutils: unknown directives and roles keep their text.

Syntax after the reStructuredText specification, https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_RULE = re.compile(r"^([!-/:-@\[-`{-~])\1{2,}\s*$")
_SHORT_RULE = re.compile(r"^([=\-~^\"'`#*+.:_])\1*\s*$")
_DIRECTIVE = re.compile(r"^(\s*)\.\. (?:\|[^|]+\| )?([\w:.-]+)::\s*(.*)$")
_COMMENT = re.compile(r"^(\s*)\.\.(?:\s|$)")
_OPTION = re.compile(r"^\s*:[\w-]+:")
_ROLE = re.compile(r":[\w:.+-]+:`~?([^`<]+)(?:<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+)<[^`>]*>`__?")
_CODE = {"code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "math", "prompt", "doctest"}
_HIDDEN = {"toctree", "image", "figure", "raw", "include", "index", "contents", "meta", "highlight", "only"}
_GRID = re.compile(r"^\s*\+[-=+]+\+\s*$")
_SIMPLE = re.compile(r"^\s*=+(?:\s+=+)+\s*$")


def rst_text(source: str) -> str:
    """The text with `#` headings (levels by first use of each adornment), fenced code and `|` table rows."""
    return "\n".join(_Reader(source.expandtabs(4).splitlines()).lines()).strip("\n")


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0
        self._adornments: list[str] = []

    def lines(self) -> Iterator[str]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            heading = self._heading()
            if heading:
                yield from ("", heading, "")
            elif _DIRECTIVE.match(line):
                yield from self._directive()
            elif _COMMENT.match(line):
                self._at += 1
                self._indented(_indent(line))
            elif _GRID.match(line) or _SIMPLE.match(line):
                yield from self._table()
            else:
                self._at += 1
                yield from self._paragraph_line(line)

    def _heading(self) -> str:
        """A line with a rule under it, or between two; the adornment's first use sets its level."""
        here, below, after = (self._line(self._at + step) for step in range(3))
        if _RULE.match(here) and below.strip() and after.rstrip() == here.rstrip():
            mark, text, used = here[0] * 2, below, 3
        elif here.strip() and not here.startswith(" ") and _underlines(below, here):
            mark, text, used = below[0], here, 2
        else:
            return ""
        if mark not in self._adornments:
            self._adornments.append(mark)
        self._at += used
        return "#" * min(self._adornments.index(mark) + 1, 6) + " " + _inline(text.strip())

    def _directive(self) -> Iterator[str]:
        found = _DIRECTIVE.match(self._lines[self._at])
        indent, name, argument = len(found.group(1)), found.group(2).split(":")[-1], found.group(3)
        self._at += 1
        body = self._indented(indent)
        while body and _OPTION.match(body[0]):
            body = body[1:]
        if name in _CODE:
            yield from _fenced(([argument] if name == "math" and argument else []) + body)
        elif name not in _HIDDEN:
            yield ""
            if argument:
                yield _inline(argument)
            yield from _Reader(_dedented(body)).lines()
            yield ""

    def _paragraph_line(self, line: str) -> Iterator[str]:
        """A line of prose; after one that ends in `::` stands literal text."""
        if not line.rstrip().endswith("::"):
            yield _inline(line)
            return
        rest = line.rstrip()[:-2]
        if rest.strip():
            yield _inline(rest) + ":"
        yield from _fenced(self._indented(_indent(line)))

    def _table(self) -> Iterator[str]:
        """A grid table line by line, its borders dropped; a simple table with its columns at the borders."""
        first = self._lines[self._at]
        yield ""
        if _GRID.match(first):
            while self._line(self._at).lstrip().startswith(("+", "|")):
                line = self._lines[self._at].strip()
                self._at += 1
                if line.startswith("|"):
                    yield _inline(line)
        else:
            starts = [found.start() for found in re.finditer(r"=+", first)]
            self._at += 1
            while self._line(self._at).strip():
                line = self._lines[self._at]
                self._at += 1
                if not _SIMPLE.match(line):
                    ends = [*starts[1:], None]
                    cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
                    yield _inline(f"| {' | '.join(cells)} |")
        yield ""

    def _indented(self, indent: int) -> list[str]:
        """The lines that stand deeper than `indent`, and the blank ones between them."""
        first = self._at
        while self._at < len(self._lines) and (
            not self._line(self._at).strip() or _indent(self._line(self._at)) > indent
        ):
            self._at += 1
        found = self._lines[first : self._at]
        while found and not found[-1].strip():
            found.pop()
        while found and not found[0].strip():
            found = found[1:]
        return found

    def _line(self, number: int) -> str:
        return self._lines[number] if number < len(self._lines) else ""


def _underlines(rule: str, text: str) -> bool:
    long_enough = len(rule.strip()) >= len(text.strip()) or _RULE.match(rule) is not None
    return bool(_SHORT_RULE.match(rule)) and long_enough and not _RULE.match(text)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedented(lines: list[str]) -> list[str]:
    least = min((_indent(line) for line in lines if line.strip()), default=0)
    return [line[least:] for line in lines]


def _trimmed(lines: list[str]) -> list[str]:
    """Without the blank lines at both ends."""
    filled = [number for number, line in enumerate(lines) if line.strip()]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def _fenced(lines: list[str]) -> list[str]:
    code = _trimmed(_dedented(lines))
    return ["", "```", *code, "```", ""] if code else []


def _inline(line: str) -> str:
    """Roles and links are reduced to the text they show."""
    for pattern in (_ROLE, _LINK):
        line = pattern.sub(lambda found: found.group(1).rstrip(), line)
    return line.replace("``", "`")
