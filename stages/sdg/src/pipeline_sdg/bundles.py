"""What one record is about: a document, or a bundle of documents whose questions connect them (`multi_doc`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.bundle_manifest import manifest_bundles
from pipeline_sdg.bundle_similarity import similar_groups
from pipeline_sdg.chunking import Passage, Window, chunk_document, in_order, title_of, windows_of
from pipeline_sdg.documents import Document

_BETWEEN = "||"
_SOURCE_ID = 16


@dataclass(frozen=True)
class Unit:
    """What a record is made of. `text` and `passages` are those of all `files`; ids of passages count through them."""

    files: tuple[str, ...]
    source_id: str
    bundle_id: str
    text: str
    passages: list[Passage]
    title: str

    @property
    def name(self) -> str:
        """For logs and the list of rejections."""
        return " + ".join(self.files)

    @property
    def is_multi_doc(self) -> bool:
        return len(self.files) > 1

    @property
    def members(self) -> tuple[str, ...]:
        """The documents of a bundle; () for a single document."""
        return self.files if self.is_multi_doc else ()


def plan_bundles(names: Sequence[str], config: SdgConfig, texts: Iterable[str]) -> list[tuple[int, ...]]:
    """Which documents go together: each is in exactly one bundle, or alone.

    Without `multi_doc` all are alone. Else first come the bundles of the manifest, then those made of the other
    documents (see `bundle_by`). With `similarity` a document without a similar one stays alone.

    Args:
        names: the documents in the order of the corpus, as `Document.path`.
        texts: theirs, in the same order; read once, and only for `bundle_by=similarity`.

    Returns:
        Places in `names`.

    Raises:
        PipelineError: the manifest cannot be used.
    """
    if not config.multi_doc:
        return [(place,) for place in range(len(names))]
    given = manifest_bundles(names, config.multi_doc_manifest, config.max_docs_per_bundle)
    used = {place for bundle in given for place in bundle}
    left = [place for place in range(len(names)) if place not in used]
    if config.bundle_by == "path":
        return given + [
            tuple(left[first : first + config.bundle_size]) for first in range(0, len(left), config.bundle_size)
        ]
    others = (text for place, text in enumerate(texts) if place not in used)
    return given + [tuple(left[number] for number in group) for group in similar_groups(others, config.bundle_size)]


def make_unit(documents: Sequence[Document], config: SdgConfig) -> Unit:
    """One document as it is; or a bundle, whose chunks also have `doc_id` (its name) and `doc_path` (below corpus_dir).

    `start`, `end` and `doc_chunk_index` of a chunk count within its document, `chunk_id` through the bundle.
    """
    files = tuple(document.path for document in documents)
    titles = [title_of(document) for document in documents]
    if len(documents) == 1:
        [document] = documents
        return Unit(files, document.path, "", document.text, chunk_document(document, config), titles[0])
    bundle_id = _bundle_id(files)
    return Unit(
        files,
        bundle_id[:_SOURCE_ID],
        bundle_id,
        _joined(documents),
        _numbered(documents, config),
        " + ".join(title for title in titles if title),
    )


def windows_of_unit(unit: Unit, config: SdgConfig) -> list[Window]:
    """What single LLM calls see of a unit, within `window_chunks` and `window_tokens`.

    A bundle's passages are put in the order of `bundle_strategy` first, so that with `doc_balanced` every full window
    has a share of every document that is long enough; there the window shows one document after the other.
    """
    passages = unit.passages
    if unit.is_multi_doc:
        order = in_order([passage.chunk for passage in passages], config.bundle_strategy)
        passages = [passages[place] for place in order]
    windows = windows_of(unit.name, unit.title, passages, config.window_chunks, config.window_tokens)
    if unit.is_multi_doc and config.bundle_strategy == "doc_balanced":
        return [replace(window, passages=tuple(sorted(window.passages, key=_number))) for window in windows]
    return windows


def _number(passage: Passage) -> int:
    return passage.chunk["chunk_id"]


def _bundle_id(files: Sequence[str]) -> str:
    """The same for the same documents in any order. A name, no secret: hence MD5."""
    names = _BETWEEN.join(sorted(files))
    return hashlib.md5(names.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _joined(documents: Sequence[Document]) -> str:
    first, *others = documents
    return first.text + "".join(f"\n\n=== Next document: {other.path} ===\n\n{other.text}" for other in others)


def _numbered(documents: Sequence[Document], config: SdgConfig) -> list[Passage]:
    found: list[Passage] = []
    for document in documents:
        own = {"doc_id": document.path, "doc_path": f"{config.corpus_dir.rstrip('/')}/{document.path}"}
        for passage in chunk_document(document, config):
            found.append(replace(passage, chunk={**passage.chunk, "chunk_id": len(found) + 1, **own}))
    return found
