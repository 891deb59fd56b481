"""The corpus: what it holds, and its usable documents, kept on disk after each file was read once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import PipelineError
from pipeline.run.progress import progress
from pipeline.run.snapshot import sha256_of
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.reading.document import Document, Failure
from pipeline_sdg.reading.files import list_files, matches, read_file, wanted_extensions
from pipeline_sdg.reading.hub import local_folder
from pipeline_sdg.spool import Spool

__all__ = [
    "Document",
    "Entry",
    "Survey",
    "describe",
    "list_files",
    "matches",
    "survey",
    "wanted_extensions",
    "warnings",
]

FEW_DOCUMENTS = 20
LISTED_AT_MOST = 10
_KEPT_AT_MOST = 1000
_DIGEST = 16

SHORT, EMPTY, DUPLICATE, UNREADABLE = "too short", "empty", "duplicate", "unreadable"


class Entry(NamedTuple):
    """A usable document: its path and its length in characters."""

    path: str
    size: int


@dataclass
class LeftOut:
    """How many were left out for one reason, and the first of them: (path, why)."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, why: str) -> None:
        self.count += 1
        if len(self.examples) < _KEPT_AT_MOST:
            self.examples.append((path, why))


@dataclass
class Survey:
    """What is in the corpus: `entries` are the usable documents in order, `document` gives their texts.

    `encodings` counts the files whose encoding had to be guessed; `sha256` is over names and bytes of all files.
    """

    texts: Spool = field(repr=False)
    files: int = 0
    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(
        default_factory=lambda: {name: LeftOut() for name in (SHORT, EMPTY, DUPLICATE, UNREADABLE)}
    )
    encodings: Counter[str] = field(default_factory=Counter)
    guessed: list[tuple[str, str]] = field(default_factory=list)
    sha256: str = ""

    def document(self, number: int) -> Document:
        """The document of `entries[number]`."""
        return Document(*self.texts[number])

    def documents(self) -> Iterator[Document]:
        return (Document(*values) for values in self.texts)

    @property
    def found(self) -> int:
        """Documents, usable or not."""
        return len(self.entries) + sum(item.count for item in self.left_out.values())

    @property
    def characters(self) -> int:
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True)
class _Seen:
    """One document of the corpus, or what stands in its place. `why` is one of the four reasons, or empty."""

    path: str
    document: Document | None
    why: str
    detail: str = ""
    guessed: str = ""


def survey(config: SdgConfig, folder: Path) -> Survey:
    """Read every file of the corpus once. Texts go to a file in `folder` that vanishes with the process.

    Raises:
        PipelineError: the corpus is missing, no file matched, or none of those that did can be used.
    """
    corpus, names = _files(config)
    found = Survey(Spool(folder), files=len(names))
    total = hashlib.sha256()
    with progress("reading documents", len(names), "files") as shown:
        for item in _seen(config, corpus, names):
            if isinstance(item, str):
                total.update(f"{item}\0{_content(corpus / item)}\n".encode("utf-8", "surrogateescape"))
                shown.advance()
            else:
                _note(found, item)
    found.sha256 = total.hexdigest()
    if not found.entries:
        raise PipelineError(_nothing_usable(corpus, found, config), fix="lower min_text_length, or fix the files")
    return found


def _note(found: Survey, item: _Seen) -> None:
    if item.guessed:
        found.encodings[item.guessed] += 1
        if len(found.guessed) < _KEPT_AT_MOST:
            found.guessed.append((item.path, item.guessed))
    if item.document is None:
        found.left_out[item.why].add(item.path, item.detail)
    else:
        found.entries.append(Entry(item.path, len(item.document.text)))
        found.texts.append(astuple(item.document))


def _files(config: SdgConfig) -> tuple[Path, list[str]]:
    folder = local_folder(config.corpus_dir)
    names = list_files(folder, wanted_extensions(config.file_extensions))[: config.num_files]
    if not names:
        raise PipelineError(
            f"no file in {folder} matches file_extensions={config.file_extensions!r}",
            fix="check corpus_dir, or set file_extensions to what your files are called",
        )
    return folder, names


def _seen(config: SdgConfig, folder: Path, names: list[str]) -> Iterator[_Seen | str]:
    """Each file's name, then everything in it. Of equal texts the first counts; only their hashes are remembered."""
    digests: dict[bytes, str] = {}
    for name in names:
        yield name
        for item in read_file(folder, name, config.text_column):
            if isinstance(item, Failure):
                yield _Seen(item.path, None, UNREADABLE, item.reason)
                continue
            document = item.document
            why, detail = _reason_against(document, config.min_text_length)
            if not why:
                digest = hashlib.sha256(f"{document.title}\0{document.text.strip()}".encode()).digest()[:_DIGEST]
                first = digests.setdefault(digest, document.path)
                if first != document.path:
                    why, detail = DUPLICATE, f"the same text as {first}"
            yield _Seen(document.path, None if why else document, why, detail, item.guessed)


def _reason_against(document: Document, min_text_length: int) -> tuple[str, str]:
    if not document.text.strip():
        return EMPTY, "no text"
    if len(document.text) < min_text_length:
        return SHORT, f"{len(document.text)} characters"
    return "", ""


def _content(path: Path) -> str:
    """The hash of a file, or that it cannot be read (which then is listed)."""
    try:
        return sha256_of(path) if path.is_file() else UNREADABLE
    except OSError:
        return UNREADABLE


def _nothing_usable(folder: Path, found: Survey, config: SdgConfig) -> str:
    counts = {name: item.count for name, item in found.left_out.items()}
    if counts[SHORT] == found.found:
        return (
            f"all {found.found} documents in {folder} are shorter than "
            f"min_text_length={config.min_text_length} characters"
        )
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    unreadable = found.left_out[UNREADABLE].examples
    example = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
    return f"none of the {found.found} documents in {folder} can be used: {said or 'the files hold none'}{example}"


def describe(found: Survey) -> list[str]:
    """Lines on what was found and what is left out."""
    sizes = [entry.size for entry in found.entries]
    counts = ", ".join(f"{item.count} {name}" for name, item in found.left_out.items())
    lines = [
        f"found {found.found} documents in {found.files} files: {len(sizes)} usable, {counts}",
        f"characters: {sum(sizes):,} in all; {sum(sizes) // len(sizes):,} on average, "
        f"{min(sizes):,} to {max(sizes):,} a document",
    ]
    for name, item in found.left_out.items():
        if item.count:
            shown = [f"{path} ({why})" if name == UNREADABLE else path for path, why in item.examples[:LISTED_AT_MOST]]
            lines.append(f"{name}: {', '.join(shown)}{_more(item.count)}")
    if found.guessed:
        shown = [f"{path} ({encoding})" for path, encoding in found.guessed[:LISTED_AT_MOST]]
        lines.append(f"encoding guessed: {', '.join(shown)}{_more(found.encodings.total())}")
    return lines


def _more(count: int) -> str:
    return f" and {count - LISTED_AT_MOST} more" if count > LISTED_AT_MOST else ""


def warnings(found: Survey) -> list[str]:
    """What makes a good result unlikely."""
    said = []
    if len(found.entries) < FEW_DOCUMENTS:
        said.append(f"only {len(found.entries)} usable documents: 50 to 100 are the least that teach a model much")
    short = found.left_out[SHORT].count
    if short * 2 > found.found:
        said.append(f"{short} of {found.found} documents are too short: is this the right folder?")
    return said
