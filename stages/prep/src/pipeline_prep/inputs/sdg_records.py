"""From SDG records to passages and questions, the same for every order in which the records are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.judgements import judgements
from pipeline_prep.questions import Converted, Question, question_id

_KEPT_FIELDS = ("query_type", "reasoning_type", "hop_count", "question_complexity")


@dataclass(frozen=True)
class _Record:
    where: str
    files: tuple[str, ...]
    chunks: list[dict[str, Any]]
    pairs: list[Any]
    data: dict[str, Any]

    @property
    def order(self) -> tuple[Any, ...]:
        return self.files, [chunk["text"] for chunk in self.chunks], [str(pair) for pair in self.pairs]


def convert(records: Iterable[tuple[str, dict[str, Any]]], threshold: float, funnel: Funnel) -> Converted:
    """Filter by the judge's score, look up the segments, merge equal passages.

    Raises:
        PipelineError: a record is malformed (no chunk list, a chunk without id or text, an id that stands twice).
    """
    held = sorted((_record(where, data) for where, data in records), key=lambda record: record.order)
    funnel.close("read", sum(len(record.pairs) for record in held), f"{len(held):,} records")

    judged = []
    unjudged = 0
    for record in held:
        found = judgements(record.data, len(record.pairs), threshold)
        for pair, judgement in zip(record.pairs, found, strict=True):
            if judgement.problem:
                funnel.reject(judgement.problem, record.where, _text(pair), judgement.detail)
                continue
            unjudged += judgement.score is None
            judged.append((record, pair, judgement.score))
    funnel.close("judged", len(judged), f"{unjudged:,} of them unjudged" if unjudged else "")

    passages = _passages(held)
    segments = {id(record): _segments(record) for record in held}
    questions = []
    for record, pair, score in judged:
        question = _question(record, segments[id(record)], pair, score, funnel)
        if question:
            questions.append(question)
    funnel.close("kept", len(questions), f"{len(passages):,} distinct passages")
    ties = [record.files for record in held] + [passage.documents for passage in passages.values()]
    return Converted(passages, questions, [tie for tie in ties if len(tie) > 1])


def _record(where: str, data: dict[str, Any]) -> _Record:
    chunks, pairs = data["chunks"], data["deduplicated_qa_pairs"]
    for name, value in (("chunks", chunks), ("deduplicated_qa_pairs", pairs)):
        if not isinstance(value, list):
            raise PipelineError(f"{where}: {name} must be a list, found {type(value).__name__}", "run sdg again")
    seen = set()
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str) or "chunk_id" not in chunk:
            raise PipelineError(f"{where}: chunk {number} needs chunk_id and text", fix="see docs/sdg.md, Output")
        if str(chunk["chunk_id"]) in seen:
            raise PipelineError(f"{where}: chunk_id {chunk['chunk_id']!r} stands twice", fix="number the chunks anew")
        seen.add(str(chunk["chunk_id"]))
    return _Record(where, tuple(data["file_name"]), chunks, pairs, data)


def _passages(records: list[_Record]) -> dict[str, Passage]:
    """Every chunk of every record, also of those without a question: the haystack stays as large as the corpus."""
    texts: dict[str, tuple[str, str]] = {}
    documents: dict[str, set[str]] = {}
    for record in records:
        for chunk in record.chunks:
            if not chunk["text"].strip():
                continue
            key = passage_id(chunk["text"])
            texts.setdefault(key, (chunk["text"], chunk.get("title") or ""))
            # In a bundle of several documents a chunk names its own.
            named = chunk.get("doc_id")
            documents.setdefault(key, set()).update([named] if named in record.files else record.files)
    return {key: Passage(key, text, title, tuple(sorted(documents[key]))) for key, (text, title) in texts.items()}


def _segments(record: _Record) -> dict[str, str]:
    return {str(chunk["chunk_id"]): passage_id(chunk["text"]) for chunk in record.chunks if chunk["text"].strip()}


def _question(
    record: _Record, segments: dict[str, str], pair: Any, score: float | None, funnel: Funnel
) -> Question | None:
    text = _text(pair).strip()
    wanted = pair.get("segment_ids") if isinstance(pair, dict) else None
    if not isinstance(pair, dict) or not isinstance(wanted, list | None):
        funnel.reject("pair unreadable", record.where, text, str(pair)[:80])
    elif not text:
        funnel.reject("empty question", record.where, text)
    elif not wanted:
        funnel.reject("no segments", record.where, text)
    elif unknown := [item for item in wanted if str(item) not in segments]:
        funnel.reject("unknown segment", record.where, text, f"{unknown} of {len(record.chunks)} segments")
    else:
        metadata = {name: pair.get(name) for name in _KEPT_FIELDS} | {
            "quality_score": score,
            "answer": pair.get("answer"),
            "hop_contexts": pair.get("hop_contexts") or [],
            "file_name": list(record.files),
            "segment_ids": wanted,
        }
        positives = tuple(dict.fromkeys(segments[str(item)] for item in wanted))
        return Question(question_id(text, record.files), text, record.files, positives, metadata, record.where)
    return None


def _text(pair: Any) -> str:
    text = pair.get("question") if isinstance(pair, dict) else None
    return text if isinstance(text, str) else ""
