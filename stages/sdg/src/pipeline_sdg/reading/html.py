"""HTML to Markdown-like text: headings, paragraphs, lists, tables and code stay; scripts, styles and menus go."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_DROPPED = {"script", "style", "nav", "noscript", "template", "svg", "iframe", "button", "select", "form"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "li", "dl", "dt", "dd"),
    *("table", "tr", "pre", "caption", "blockquote", "figure", "figcaption", "hr", "body", "address"),
    *("details", "summary"),
}
_CONDITIONAL = re.compile(r"<!\[[^>]*>?")
"""`<![if …]>` and the like, at which the parser of older Pythons gives up."""
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


def declared_charset(data: bytes) -> str:
    """The encoding a page names in its first kilobytes, or nothing."""
    found = _DECLARED.search(data[:4096])
    return found.group(1).decode("ascii", "ignore") if found else ""


def html_text(page: str) -> tuple[str, str]:
    """(title, text) of a page. If it has a `<main>`, only that is its text.

    A dropped element that nobody closes would take the rest of the page with it; it is then kept.
    """
    whole, end, rest = _CONDITIONAL.sub("", page).rpartition(">")
    page = whole + end + rest.replace("<", "&lt;")  # what no `>` follows is no tag, and slow to look for
    dropped = set(_DROPPED)
    while True:
        parser = _Reader(dropped)
        parser.feed(page)
        parser.close()
        if not parser.skipping or parser.skipping in ("script", "style"):
            break
        dropped.discard(parser.skipping)
    parser.end_block()
    lines = parser.main if any(parser.main) else parser.lines
    return _single_spaced(parser.title), "\n".join(lines).strip("\n")


def _single_spaced(parts: list[str]) -> str:
    return " ".join("".join(parts).split())


class _Reader(HTMLParser):
    """Collects lines of Markdown: of the whole page, and of its `<main>`. `end_block` finishes the open block."""

    def __init__(self, dropped: set[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.lines: list[str] = []
        self.main: list[str] = []
        self.skipping = ""
        self._dropped = dropped
        self._depth_skipped = 0
        self._in_title = False
        self._in_main = 0
        self._in_code = False
        self._text: list[str] = []
        self._prefix = ""  # "## ", "- " or the indent of an item's later paragraphs
        self._lists: list[int] = []  # of every open list: the number of its last item, or -1 for bullets
        self._row: list[list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.skipping:
            self._depth_skipped += tag == self.skipping
        elif tag in self._dropped:
            self.skipping, self._depth_skipped = tag, 1
        elif tag == "title":
            self._in_title = not self.title  # an inline drawing may have titles too
        elif tag == "br":
            self.handle_data("\n")
        elif self._in_code:
            return
        elif tag in ("td", "th"):
            self._open_cell()
        elif self._row is not None and tag != "tr":
            self.handle_data(" " if tag in _BLOCKS else "")
        else:
            self._open_block(tag)

    def _open_block(self, tag: str) -> None:
        if tag not in _BLOCKS and tag not in _HEADINGS:
            return
        self.end_block()
        if tag in _HEADINGS:
            self._prefix = "#" * _HEADINGS[tag] + " "
        elif tag == "li":
            self._prefix = self._next_item()
        elif tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else -1)
        elif tag == "tr":
            self._row = []
        elif tag == "pre":
            self._in_code = True
        elif tag == "main":
            self._in_main += 1

    def _next_item(self) -> str:
        indent = "  " * max(len(self._lists) - 1, 0)
        if not self._lists or self._lists[-1] < 0:
            return f"{indent}- "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _open_cell(self) -> None:
        if self._row is None:
            self.end_block()
            self._row = []
        self._row.append([])

    def handle_endtag(self, tag: str) -> None:
        if self.skipping:
            self._depth_skipped -= tag == self.skipping
            if not self._depth_skipped:
                self.skipping = ""
        elif tag == "title":
            self._in_title = False
        elif (self._in_code and tag != "pre") or (self._row is not None and tag not in ("tr", "table")):
            return
        elif tag in _BLOCKS or tag in _HEADINGS:
            self.end_block()
            self._close_block(tag)

    def _close_block(self, tag: str) -> None:
        if tag == "li" or tag in _HEADINGS:
            self._prefix = ""
        elif tag in ("ul", "ol"):
            self._lists = self._lists[:-1]
            self._prefix = "  " * len(self._lists)
            if not self._lists:
                self._put("")
        elif tag == "table":
            self._put("")
        elif tag == "main":
            self._in_main = max(self._in_main - 1, 0)

    def handle_data(self, data: str) -> None:
        if self.skipping:
            return
        if self._in_title:
            self.title.append(data)
        elif self._row:
            self._row[-1].append(data)
        else:
            self._text.append(data)

    def end_block(self) -> None:
        """Put what was collected: a row of a table, a piece of code, or a paragraph behind its prefix."""
        if self._row is not None:
            if text := _single_spaced(self._text):  # it stood before the first cell
                self._put_paragraph(text)
            cells = [_single_spaced(cell).replace("|", "\\|") for cell in self._row]
            self._row = None
            if any(cells):
                self._put(f"| {' | '.join(cells)} |")
        elif self._in_code:
            self._in_code = False
            self._put_code("".join(self._text).strip("\n"))
        elif text := _single_spaced(self._text):
            self._put_paragraph(text)
        self._text = []

    def _put_paragraph(self, text: str) -> None:
        self._put(self._prefix + text)
        if self._prefix.startswith("#") or not self._prefix:
            self._put("")
            self._prefix = ""
        else:  # what follows in the item belongs to it
            self._prefix = "  " * max(len(self._lists), 1)

    def _put_code(self, code: str) -> None:
        if code.strip():
            fence = "~~~~" if "```" in code else "```"
            self._put(f"{fence}\n{code}\n{fence}\n")

    def _put(self, line: str) -> None:
        self.lines.append(line)
        if self._in_main:
            self.main.append(line)
