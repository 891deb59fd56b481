"""DOCX to Markdown-like text with python-docx: headings, lists and tables, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADING = re.compile(r"^heading (\d)$", re.IGNORECASE)


def docx_text(path: Path) -> tuple[str, str]:
    """(title, text) of a Word file; the title is that of its properties, or its paragraph of style Title."""
    import docx

    document = docx.Document(str(path))
    blocks = list(_blocks(document))
    title = document.core_properties.title or next((text for style, text in blocks if style == "title"), "")
    lines: list[str] = []
    for style, text in blocks:
        if style not in ("item", "row") or not lines or not lines[-1]:
            lines.append("")
        lines.append(text if style != "title" else f"# {text}")
        if style not in ("item", "row"):
            lines.append("")
    return " ".join(title.split()), re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _blocks(document: Any) -> Iterator[tuple[str, str]]:
    from docx.table import Table

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            yield "gap", ""
            yield from (("row", row) for row in _rows(block))
            yield "gap", ""
        elif block.text.strip():
            yield _paragraph(block)


def _paragraph(paragraph: Any) -> tuple[str, str]:
    """(`title`, `heading`, `item` or `prose`, Markdown of it)."""
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    text = " ".join(paragraph.text.split())
    heading = _HEADING.match(style)
    if heading:
        return "heading", f"{'#' * min(int(heading.group(1)), 6)} {text}"
    if style.lower() == "title":
        return "title", text
    properties = paragraph._p.pPr
    if style.lower().startswith("list") or (properties is not None and properties.numPr is not None):
        return "item", f"- {text}"
    return "prose", text


def _rows(table: Any) -> Iterator[str]:
    """One line a row; a cell that spans several columns stands once."""
    for row in table.rows:
        cells = list({id(cell._tc): cell for cell in row.cells}.values())
        texts = [" ".join(cell.text.split()).replace("|", "\\|") for cell in cells]
        if any(texts):
            yield f"| {' | '.join(texts)} |"
