"""PDF to text with pypdf: pages joined, words whole again, running headers and page numbers gone."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from pipeline_sdg.reading.document import Unreadable

_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010]\n(\w)")
_SENTENCE_END = (".", "!", "?", ":", ";", "\u3002", "\uff01", "\uff1f")
_EDGE_LINES = 2
_REPEATED_FROM = 3
"""Pages on whose edge the same line must stand to be taken for a running header or footer."""


def pdf_text(path: Path) -> tuple[str, str]:
    """(title, text) of a PDF file.

    Raises:
        Unreadable: it is locked, or holds no text (scanned pages).
    """
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every flaw it has repaired
    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("locked with a password")
    pages = [page.extract_text().splitlines() for page in reader.pages]
    text = joined_pages(pages)
    if pages and not text.strip():
        raise Unreadable("no text in it: scanned pages need character recognition first")
    title = str((reader.metadata and reader.metadata.title) or "").strip()
    return ("" if "." in title.split(" ")[-1] else title), text


def joined_pages(pages: list[list[str]]) -> str:
    """One text of the lines of all pages.

    Lines at the upper or lower edge that stand on more than half of the pages (numbers aside) are dropped, words
    divided at a line's end are joined, and a sentence runs on over the page break.
    """
    repeated = _running_lines(pages)
    text = ""
    for lines in pages:
        kept = [line.rstrip() for number, line in enumerate(lines) if not _is_running(line, number, lines, repeated)]
        page = "\n".join(kept).strip("\n")
        if page:
            text += ("" if not text else "\n\n" if text.rstrip().endswith(_SENTENCE_END) else "\n") + page
    return _HYPHEN.sub(_unhyphenated, text)


def _unhyphenated(found: re.Match[str]) -> str:
    """`exam-\\nple` is one word; before a capital or a digit the hyphen belongs to the name (`X-\\nRay`)."""
    following = found.group(1)
    return following if following.islower() else f"-{following}"


def _running_lines(pages: list[list[str]]) -> set[str]:
    counts = Counter(form for lines in pages for form in {_form(lines[at]) for at in _edges(lines)})
    return {form for form, count in counts.items() if count >= _REPEATED_FROM and count * 2 > len(pages)}


def _edges(lines: list[str]) -> set[int]:
    filled = [number for number, line in enumerate(lines) if line.strip()]
    return {*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]}


def _is_running(line: str, number: int, lines: list[str], repeated: set[str]) -> bool:
    return bool(repeated) and number in _edges(lines) and _form(line) in repeated


def _form(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()))
