"""The parts of a Markdown-like text: headings, paragraphs, list items, table rows and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "prose", "item", "row", "code"]

_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(\S.*)$")
_UNDERLINE = re.compile(r"^ {0,3}(={3,}|-{3,})\s*$")
_BREAK = re.compile(r"^ {0,3}(?:[-*_=]\s*){3,}$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_ITEM = re.compile(r"^( *)(?:[-*+]|\d{1,9}[.)])\s+\S")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\s*\n", re.DOTALL)
_TITLE_LINE = re.compile(r"^title:(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One part; `level` is a heading's (1 to 6). A code block's text is without its fences."""

    kind: Kind
    text: str
    level: int = 0


def front_matter(text: str) -> tuple[str, str]:
    """(title, rest): YAML front matter is about the page, not part of it; only its title is kept."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return "", text
    title = _TITLE_LINE.search(found.group(1))
    return (title.group(1).strip().strip("\"'") if title else ""), text[found.end() :]


def blocks(text: str) -> Iterator[Block]:
    """All parts of a text in order; every line that is neither blank nor a rule is in exactly one."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        block, at = _next(lines, at)
        if block:
            yield block


def _next(lines: list[str], at: int) -> tuple[Block | None, int]:
    """The part that begins at line `at`, and the line after it."""
    line = lines[at]
    if not line.strip() or _BREAK.match(line):
        return None, at + 1
    if fence := _FENCE.match(line):
        return _code(lines, at + 1, fence.group(1))
    if heading := _HEADING.match(line):
        return Block("heading", _without_closing(heading.group(2)), len(heading.group(1))), at + 1
    if _ROW.match(line):
        return Block("row", line.strip()), at + 1
    if at + 1 < len(lines) and (rule := _UNDERLINE.match(lines[at + 1])) and not _ITEM.match(line):
        return Block("heading", line.strip(), 1 if rule.group(1)[0] == "=" else 2), at + 2
    if item := _ITEM.match(line):
        return _item(lines, at, len(item.group(1)))
    return _run(lines, at, "prose")


def _without_closing(heading: str) -> str:
    """`Alarms ##` -> `Alarms`; the mark of `C#` belongs to the name."""
    text = heading.rstrip()
    bare = text.rstrip("#")
    return bare.rstrip() if bare[-1:].isspace() else text


def _code(lines: list[str], at: int, fence: str) -> tuple[Block | None, int]:
    """Up to the fence that closes it, or the end of the text if none does."""
    first = at
    while at < len(lines):
        mark = _FENCE.match(lines[at])
        if mark and mark.group(1).startswith(fence):
            break
        at += 1
    code = "\n".join(lines[first:at]).strip("\n")
    return (Block("code", code) if code.strip() else None), at + 1


def _item(lines: list[str], at: int, indent: int) -> tuple[Block, int]:
    """A list item with its further lines and paragraphs, which stand deeper than its mark."""
    block, at = _run(lines, at, "item")
    texts = [block.text]
    while at + 1 < len(lines) and not lines[at].strip():
        following = lines[at + 1]
        deeper = len(following) - len(following.lstrip()) > indent + 1
        if not deeper or _starts_new(following):
            break
        block, at = _run(lines, at + 1, "item")
        texts.append(block.text)
    return Block("item", "\n".join(texts)), at


def _run(lines: list[str], at: int, kind: Kind) -> tuple[Block, int]:
    """Lines up to a blank one or one that begins something else."""
    first = at
    at += 1
    while at < len(lines) and lines[at].strip() and not _starts_new(lines[at]):
        at += 1
    return Block(kind, "\n".join(lines[first:at]).strip()), at


def _starts_new(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_FENCE, _HEADING, _ROW, _ITEM))
