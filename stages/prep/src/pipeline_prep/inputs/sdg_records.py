"""From SDG records to passages and questions, the same for every order in which the records are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import encodable
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.gathered import Gathered, Order
from pipeline_prep.inputs.judgements import Judgement, judgements
from pipeline_prep.inputs.metadata import is_writable, plain
from pipeline_prep.questions import Converted

_KEPT_FIELDS = ("query_type", "reasoning_type", "hop_count", "question_complexity")
_STYLES = ("query_style", "clean_question")
"""What a pair has if styles were asked for: how it is asked, and how it was meant before it was mistyped."""
_LABELS = ("extra_positives", "hops_needed")
"""What later checks of sdg add to a pair, if they were asked for."""


@dataclass(frozen=True)
class _Record:
    """What is kept of a record while its pairs are looked at."""

    where: str
    files: tuple[str, ...]
    segments: dict[str, str | None]
    """Chunk id -> passage id; None for a blank chunk."""
    order: Order


def convert(
    records: Iterable[tuple[str, dict[str, Any]]],
    threshold: float,
    funnel: Funnel,
    minimums: Mapping[str, float] | None = None,
    drop_unanswerable: bool = True,
) -> Converted:
    """Filter by the judge's scores, look up the segments, merge equal passages; one record is held at a time.

    Args:
        records: (where it stands, record) of `pipeline.records.sdg`.
        threshold: lowest overall score; unjudged pairs are kept.
        minimums: criterion -> lowest score.
        drop_unanswerable: see `judgements`.

    Raises:
        PipelineError: a record is malformed (no chunk list, a chunk without id or text, an id that stands twice).
    """
    gathered = Gathered()
    read = found = judged = unjudged = kept = 0
    for where, data in records:
        pairs = _list(data, "deduplicated_qa_pairs", where)
        found_here = judgements(data.get("qa_evaluations"), len(pairs), threshold, minimums or {}, drop_unanswerable)
        record = _record(where, data, gathered, [plain(pair) for pair in pairs], found_here)
        read, found = read + 1, found + len(pairs)
        for number, (pair, judgement) in enumerate(zip(pairs, found_here, strict=True)):
            if judgement.problem:
                funnel.reject(judgement.problem, where, _text(pair), judgement.detail, step="judged")
                continue
            judged, unjudged = judged + 1, unjudged + (judgement.score is None)
            problem, detail = _add(gathered, record, number, pair, judgement)
            kept += not problem
            if problem:
                funnel.reject(problem, where, _text(pair), detail, step="kept")
    funnel.close("read", found, f"{read:,} records")
    funnel.close("judged", judged, f"{unjudged:,} of them unjudged" if unjudged else "")
    funnel.close("kept", kept, f"{gathered.passages:,} distinct passages")
    return _with_extra_positives(gathered.finish())


def _with_extra_positives(converted: Converted) -> Converted:
    """Passages that pooled judging found to answer too count as positives, wherever they stand.

    Their documents stay with the question's: else the split would part a question from its answers.
    """
    questions, ties = [], set(converted.ties)
    for question in converted.questions:
        named = question.metadata.get("extra_positives")
        known = [key for key in named if isinstance(key, str) and key in converted.passages] if named else []
        extra = [key for key in dict.fromkeys(known) if key not in question.positives]
        documents = {*question.documents, *(name for key in extra for name in converted.passages[key].documents)}
        if len(documents) > len(question.documents):
            ties.add(tuple(sorted(documents)))
        questions.append(replace(question, positives=(*question.positives, *extra)))
    return replace(converted, questions=questions, ties=sorted(ties))


def _list(data: dict[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(data[name], list):
        raise PipelineError(f"{where}: {name} must be a list, found {type(data[name]).__name__}", "run sdg again")
    return data[name]


def _record(where: str, data: dict[str, Any], gathered: Gathered, pairs: list[Any], found: list[Judgement]) -> _Record:
    """Gather every chunk, also those without a question: the haystack stays as large as the corpus."""
    chunks = _list(data, "chunks", where)
    files = tuple(encodable(name, where, "file_name") for name in data["file_name"])
    texts = []
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str) or "chunk_id" not in chunk:
            raise PipelineError(f"{where}: chunk {number} needs chunk_id and text", fix="see docs/sdg.md, Output")
        texts.append(encodable(chunk["text"], where, f"chunk {number}"))
    content = json.dumps([texts, pairs, [str(item) for item in found]], ensure_ascii=True)
    order = (files, hashlib.blake2b(content.encode(), digest_size=16).hexdigest())
    segments: dict[str, str | None] = {}
    for number, (chunk, text) in enumerate(zip(chunks, texts, strict=True)):
        name = _name(chunk["chunk_id"])
        if name in segments:
            raise PipelineError(f"{where}: chunk_id {name!r} stands twice", fix="number the chunks anew")
        title = chunk.get("title")
        title = encodable(title, where, f"title of chunk {number}") if isinstance(title, str) else ""
        # In a bundle of several documents a chunk names its own.
        own = [chunk.get(field) for field in ("doc_id", "doc_path") if chunk.get(field) in files]
        # A chunk without text is no passage, even with a title.
        segments[name] = gathered.passage(text, title, own[:1] or files, (*order, number)) if text.strip() else None
    gathered.tie(files)
    return _Record(where, files, segments, order)


def _add(gathered: Gathered, record: _Record, number: int, pair: Any, judgement: Judgement) -> tuple[str, str]:
    """Gather the question of a pair; else (why not, detail)."""
    wanted = pair.get("segment_ids") if isinstance(pair, dict) else None
    text = _text(pair).strip()
    if not isinstance(pair, dict) or not isinstance(wanted, list | None):
        return "pair unreadable", str(plain(pair))[:80]
    if not is_writable(text):
        return "pair unreadable", "the question holds half of a surrogate pair"
    if not text:
        return "empty question", ""
    if not wanted:
        return "no segments", ""
    names = [_name(item) for item in wanted]
    if unknown := [name for name in names if not record.segments.get(name)]:
        return "unknown segment", f"{', '.join(unknown)[:80]} of {len(record.segments)} segments"
    known = plain(pair)
    metadata = {field: known.get(field) for field in _KEPT_FIELDS} | {
        "quality_score": judgement.score,
        "criteria": judgement.criteria,
        "answer": known.get("answer"),
        "hop_contexts": known.get("hop_contexts") or [],
        "file_name": list(record.files),
        "segment_ids": known["segment_ids"],
    }
    metadata |= {field: known[field] for field in _STYLES if isinstance(known.get(field), str)}
    metadata |= {field: known[field] for field in _LABELS if isinstance(known.get(field), list)}
    positives = [key for name in names if (key := record.segments[name])]
    order = (*record.order, number)
    gathered.question(text, record.files, positives, metadata, record.where, order=order)
    return "", ""


def _name(value: Any) -> str:
    """An id as text; tables turn the whole numbers of a column with a gap into 1.0, 2.0, …."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(plain(value))


def _text(pair: Any) -> str:
    text = pair.get("question") if isinstance(pair, dict) else None
    return text if isinstance(text, str) else ""
