"""Training files whose rows name passages by id: `{"corpus": {"path": …}, "data": [row, …]}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import as_id, as_list, as_object, as_text, references
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.draft import Corpus, Draft, Part
from pipeline.records.training import REQUIRED

_FIX = 'write {"corpus": {"path": FOLDER}, "data": [row, …]}; run prep, or see docs/prep.md'


def read_corpus_ids(path: Path, document: dict[str, Any], corpora: Corpora) -> Part:
    """The rows of a parsed file; corpus paths are relative to its folder.

    Raises:
        PipelineError: names the file, the row, the question and the missing or wrong field.
    """
    entries, data = document["corpus"], document.get("data")
    if not isinstance(data, list):
        raise PipelineError(f"{path}: `data` must be a list of rows", fix=_FIX)
    known: dict[str, int] = {}
    found: list[Corpus] = []
    for entry in as_list(entries):
        place = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(place, str) or "\0" in place:
            raise PipelineError(f'{path}: `corpus` must be {{"path": FOLDER}} or a list of these', fix=_FIX)
        corpus = corpora.folder(path.parent / place)
        if corpus.id not in known:
            known[corpus.id] = len(found)
            found.append(corpus)
    if not found:
        raise PipelineError(f"{path}: `corpus` names no folder", fix=_FIX)
    draft = Draft(str(path), "row")
    for number, item in enumerate(data):
        data[number] = None  # the parsed row is let go: a file of a million rows takes gigabytes
        _add(draft, number, item, known)
    return draft.by_id(found, [path, *(Path(corpus.place) for corpus in found)])


def _add(draft: Draft, number: int, item: Any, corpora: dict[str, int]) -> None:
    where = draft.where(number)
    row = as_object(item, where)
    if missing := [name for name in REQUIRED if name not in row]:
        raise PipelineError(f"{where} ({row.get('question_id', '?')!s:.40}) lacks {', '.join(missing)}")
    question_id = as_id(row["question_id"], where, "question_id")
    where = f"{where} ({question_id})"
    corpus_id = as_id(row["corpus_id"], where, "corpus_id")
    if corpus_id not in corpora:
        raise PipelineError(f"{where}: corpus_id {corpus_id!r} is none of {', '.join(corpora)}")
    positives, negatives = references(row["pos_doc"], where, "pos_doc"), references(row["neg_doc"], where, "neg_doc")
    if not positives:
        raise PipelineError(f"{where} has no positive in pos_doc")
    known = [name for name, _ in references(row.get("known_pos_ids"), where, "known_pos_ids")]
    question = as_text(row["question"], where, "question")
    draft.add(number, question_id, question, positives, negatives, known, corpora[corpus_id])
