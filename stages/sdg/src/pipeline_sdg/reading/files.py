"""Which files belong to the corpus, and how each kind is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from pipeline_sdg.reading.document import Document, Failure, Found, Unreadable
from pipeline_sdg.reading.encoding import decode

_TABLES = {".jsonl", ".csv", ".tsv"}
_HTML = {".html", ".htm", ".xhtml"}
_RST = {".rst", ".rest"}


def wanted_extensions(file_extensions: str) -> frozenset[str]:
    """`".txt,md,"` -> {".txt", ".md", ""}; the empty item stands for files without extension."""
    items = [item.strip().lower() for item in file_extensions.split(",")]
    return frozenset(item if not item or item.startswith(".") else f".{item}" for item in items)


def matches(name: str, extensions: frozenset[str]) -> bool:
    """The one rule for which file belongs to the corpus: its last suffix, whatever its length or case.

    `notes.MD` is .md, `release-5.1` is .1, `README` has none. Hidden files never count.
    """
    return not name.startswith(".") and PurePath(name).suffix.lower() in extensions


def list_files(corpus_dir: Path, extensions: frozenset[str]) -> list[str]:
    """Relative paths of all matching files below `corpus_dir`, sorted; hidden folders are passed over."""
    found = []
    for root, folders, names in os.walk(corpus_dir):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(root).relative_to(corpus_dir)
        found += [(relative / name).as_posix() for name in names if matches(name, extensions)]
    return sorted(found)


def read_file(folder: Path, name: str, text_column: str | None) -> Iterator[Found | Failure]:
    """The documents of one file, or why there are none. The kind is told by the last suffix; unknown ones are text."""
    path = folder / name
    if _printable(name) != name:
        yield Failure(_printable(name), "its name is not UTF-8")
        return
    try:
        if not path.is_file():  # a pipe would be waited for without end
            raise Unreadable("not a file")
        if path.suffix.lower() in _TABLES:
            from pipeline_sdg.reading.tables import table_documents

            yield from table_documents(path, name, text_column)
        else:
            yield _single(path, name)
    except Unreadable as reason:
        yield Failure(name, str(reason))
    except OSError as error:
        yield Failure(name, error.strerror or str(error))
    except Exception as error:  # parsers of other people's formats raise anything on a damaged file
        said = (str(error).strip().splitlines() or [""])[0][:200]
        yield Failure(name, f"damaged, or not what its name says: {type(error).__name__}: {said}")


def _single(path: Path, name: str) -> Found:
    kind = path.suffix.lower()
    guessed = ""
    if kind == ".pdf":
        from pipeline_sdg.reading.pdf import pdf_text

        title, text = pdf_text(path)
    elif kind == ".docx":
        from pipeline_sdg.reading.docx import docx_text

        title, text = docx_text(path)
    elif kind in _HTML:
        from pipeline_sdg.reading.html import declared_charset, html_text

        data = path.read_bytes()
        page, guessed = decode(data, declared_charset(data))
        title, text = html_text(page)
    else:
        title, (text, guessed) = "", decode(path.read_bytes())
        if kind in _RST:
            from pipeline_sdg.reading.rst import rst_text

            text = rst_text(text)
    return Found(Document(name, _writable(text), _writable(title)), guessed)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _writable(text: str) -> str:
    """Without what cannot be stored: NUL and halves of surrogate pairs, which PDF files are full of."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
