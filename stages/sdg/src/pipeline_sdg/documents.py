"""The corpus on disk: which files count, what they hold, and what a run over them will cost."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from pipeline.errors import PipelineError

FEW_DOCUMENTS = 20
LISTED_AT_MOST = 10


@dataclass(frozen=True)
class Document:
    """One usable file. `path` is relative to the corpus, with forward slashes; it is the document's id."""

    path: str
    text: str


@dataclass
class Corpus:
    """What was read, and what was left out and why (relative paths)."""

    documents: list[Document] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return len(self.documents) + len(self.short) + len(self.empty) + len(self.undecodable)

    @property
    def characters(self) -> int:
        return sum(len(document.text) for document in self.documents)


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


def read_corpus(corpus_dir: str, file_extensions: str, num_files: int | None, min_text_length: int) -> Corpus:
    """Read every matching file, the first `num_files` of them by path.

    Raises:
        PipelineError: the folder is missing, no file matched, or none of those that did can be used.
    """
    if "://" in corpus_dir:
        raise PipelineError(
            f"corpus_dir={corpus_dir}: remote corpora arrive in a later version", fix="download it and name the folder"
        )
    folder = Path(corpus_dir).expanduser()
    if not folder.is_dir():
        raise PipelineError(f"corpus_dir: {folder} is not a folder", fix="set corpus_dir=PATH to your documents")
    names = list_files(folder, wanted_extensions(file_extensions))[:num_files]
    if not names:
        raise PipelineError(
            f"no file in {folder} matches file_extensions={file_extensions!r}",
            fix="check corpus_dir, or set file_extensions to what your files are called",
        )
    corpus = Corpus()
    for name in names:
        _sort_in(corpus, folder, name, min_text_length)
    if not corpus.documents:
        raise PipelineError(
            _nothing_usable(folder, corpus, min_text_length), fix="lower min_text_length, or fix the files"
        )
    return corpus


def _sort_in(corpus: Corpus, folder: Path, name: str, min_text_length: int) -> None:
    try:
        text = (folder / name).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        corpus.undecodable.append(name)
        return
    except OSError as error:
        raise PipelineError(f"cannot read {folder / name}: {error.strerror}") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        corpus.undecodable.append(name)
    elif not text.strip():
        corpus.empty.append(name)
    elif len(text) < min_text_length:
        corpus.short.append(name)
    else:
        corpus.documents.append(Document(name, text))


def _nothing_usable(folder: Path, corpus: Corpus, min_text_length: int) -> str:
    if len(corpus.short) == corpus.found:
        return f"all {corpus.found} files in {folder} are shorter than min_text_length={min_text_length} characters"
    return (
        f"none of the {corpus.found} files in {folder} can be used: {len(corpus.short)} shorter than "
        f"min_text_length={min_text_length}, {len(corpus.empty)} empty, {len(corpus.undecodable)} not UTF-8 text"
    )


def describe(corpus: Corpus) -> list[str]:
    """Lines on what was found."""
    sizes = [len(document.text) for document in corpus.documents]
    lines = [
        f"found {corpus.found} files: {len(sizes)} usable, {len(corpus.short)} too short, {len(corpus.empty)} empty, "
        f"{len(corpus.undecodable)} not UTF-8 text",
        f"characters: {sum(sizes):,} in all; {sum(sizes) // len(sizes):,} on average, "
        f"{min(sizes):,} to {max(sizes):,} a document",
    ]
    for what, names in (("empty", corpus.empty), ("not UTF-8 text", corpus.undecodable)):
        if names:
            more = f" and {len(names) - LISTED_AT_MOST} more" if len(names) > LISTED_AT_MOST else ""
            lines.append(f"{what}: {', '.join(names[:LISTED_AT_MOST])}{more}")
    return lines


def warnings(corpus: Corpus) -> list[str]:
    """What makes a good result unlikely."""
    found = []
    if len(corpus.documents) < FEW_DOCUMENTS:
        found.append(f"only {len(corpus.documents)} usable documents: 50 to 100 are the least that teach a model much")
    if len(corpus.short) * 2 > corpus.found:
        found.append(f"{len(corpus.short)} of {corpus.found} files are too short: is this the right folder?")
    return found
