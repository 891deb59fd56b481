"""Rows that carry their texts: `pos_doc`/`neg_doc` records, sentence-transformers style columns, Cohere's rerank rows.

Cohere's rows are those of its rerank fine-tuning: https://docs.cohere.com/docs/rerank-preparing-the-data
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import Ref, as_id, as_list, as_object, as_score, as_text, inline_key
from pipeline.records.sources.draft import Draft, Part

QUESTION = ("anchor", "query", "question")
POSITIVE = ("positive", "passage", "answer", "document", "context")
SCORES = ("label", "labels", "score", "scores")
_COHERE = ("relevant_passages", "hard_negatives")
_IDS = ("question_id", "id")
_NEGATIVE = re.compile(r"negatives?|negative_\d+")
_Reader = Callable[[dict[str, Any], str], tuple[str, list[Ref], list[Ref]]]
ACCEPTED = (
    "accepted: query|question with pos_doc and neg_doc; columns anchor|query|question with "
    "positive|passage|answer|document|context and negative, negative_1, … and label|score; "
    "query with relevant_passages and hard_negatives; "
    '{"corpus": {"path": …}, "data": […]}; a BEIR folder'
)


def read_records(name: str, unit: str, records: Iterable[tuple[int, Any]], files: list[Path]) -> Part:
    """Rows of one file; the first record says which of the formats it holds.

    Args:
        records: (line or row number, record).

    Raises:
        PipelineError: names the file, the line or row, the question and the value.
    """
    draft = Draft(name, unit)
    first: _Reader | None = None
    for index, (number, value) in enumerate(records):
        where = draft.where(number)
        record = as_object(value, where)
        read = _reader_of(record)
        if read is None:
            raise PipelineError(f"{where}: no known format has the keys {_shown(record)}", fix=ACCEPTED)
        if first not in (None, read):
            raise PipelineError(f"{where} has another format than the first row (keys {_shown(record)})", fix=ACCEPTED)
        first = read
        given = next((record[item] for item in _IDS if item in record), None)
        question_id = f"{Path(name).name}:{index}" if given is None else as_id(given, where, "question_id")
        where = f"{where} ({question_id})"
        question, positives, negatives = read(record, where)
        draft.add(number, question_id, question, positives, negatives)
    return draft.by_content(files)


def is_labelled(record: Any) -> bool:
    """Whether a record has the keys of one of the formats."""
    return isinstance(record, dict) and _reader_of(record) is not None


def is_unanswered(record: dict[str, Any], where: str) -> bool:
    """Whether the field of the positives is there and holds nothing, or blank text alone."""
    name = _positive_field(record, where)
    return name in record and all(isinstance(item, str) and not item.strip() for item in as_list(record[name]))


def other_fields(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a record that are neither its id nor read as question, passage or score."""
    read = {*_IDS, *QUESTION, _positive_field(record, where), "neg_doc", _COHERE[1]}
    if _reader_of(record) is _column_row:
        read |= {*SCORES, *filter(_is_negative, record)}
    return {name: value for name, value in record.items() if name not in read}


def _positive_field(record: dict[str, Any], where: str) -> str:
    fields = {_cohere_row: _COHERE[0], _inline_row: "pos_doc", None: ""}
    read = _reader_of(record)
    return _positive_name(record, where) if read is _column_row else fields[read]


def _reader_of(record: dict[str, Any]) -> _Reader | None:
    if "pos_doc" in record or "neg_doc" in record:
        return _inline_row
    if _COHERE[0] in record:
        return _cohere_row
    if any(name in record for name in POSITIVE) and any(name in record for name in QUESTION):
        return _column_row
    return None


def _shown(record: dict[str, Any]) -> str:
    return ", ".join(f"{name!s:.40}" for name in list(record)[:12]) or "(none)"


def _inline_row(record: dict[str, Any], where: str) -> tuple[str, list[Ref], list[Ref]]:
    if missing := [name for name in ("pos_doc", "neg_doc") if name not in record]:
        raise PipelineError(f"{where} lacks {', '.join(missing)}", fix="an empty list says that there are no negatives")
    name = one_of(record, ("query", "question"), where)
    question = as_text(record[name], where, "question")
    positives, negatives = (
        [_document(item, where, field) for item in as_list(record[field])] for field in ("pos_doc", "neg_doc")
    )
    if not positives:
        raise PipelineError(f"{where} has no positive in pos_doc")
    return question, positives, negatives


def _cohere_row(record: dict[str, Any], where: str) -> tuple[str, list[Ref], list[Ref]]:
    name = one_of(record, ("query", "question"), where)
    question = as_text(record[name], where, "question")
    positives, negatives = ([_document(item, where, field) for item in as_list(record.get(field))] for field in _COHERE)
    if not positives:
        raise PipelineError(f"{where} has no positive in {_COHERE[0]}")
    return question, positives, negatives


def _document(item: Any, where: str, field: str) -> Ref:
    if not isinstance(item, dict):
        return inline_key(as_text(item, where, f"{field} text")), math.nan
    if "text" not in item:
        known = "by id, which needs a corpus beside the rows" if "id" in item else f"with the keys {_shown(item)}"
        raise PipelineError(f"{where}: {field} has a passage without text ({known})", fix=ACCEPTED)
    title = item.get("title")
    title = "" if title is None or title == "" else as_text(title, where, f"{field} title").replace("\0", " ")
    text = as_text(item["text"], where, f"{field} text")
    return inline_key(text, title), as_score(item.get("score"), where, field)


def one_of(record: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """The one of `names` that the record has."""
    found = [name for name in names if name in record]
    if len(found) != 1:
        what = f"has {' and '.join(found)}, which mean the same" if found else f"lacks {' or '.join(names)}"
        raise PipelineError(f"{where} {what}", fix=ACCEPTED)
    return found[0]


def _column_row(record: dict[str, Any], where: str) -> tuple[str, list[Ref], list[Ref]]:
    question_name, positive_name = one_of(record, QUESTION, where), _positive_name(record, where)
    question = as_text(record[question_name], where, "question")
    positive = as_text(record[positive_name], where, positive_name)
    texts = [
        as_text(item, where, name)
        for name in sorted(filter(_is_negative, record), key=_negative_order)
        for item in as_list(record[name])
        if item not in (None, "")  # a row may have fewer negatives than there are columns
    ]
    scores = _scores(record, 1 + len(texts), where)
    keys = [(inline_key(text), score) for text, score in zip([positive, *texts], scores, strict=True)]
    return question, keys[:1], keys[1:]


def _positive_name(record: dict[str, Any], where: str) -> str:
    """The column of the positive; beside another such column `answer` is what the answer says, not where it stands."""
    names = [name for name in POSITIVE if name in record]
    return one_of(record, tuple(name for name in POSITIVE if name != "answer" or names == ["answer"]), where)


def _is_negative(name: Any) -> bool:
    return isinstance(name, str) and _NEGATIVE.fullmatch(name) is not None


def _negative_order(name: str) -> tuple[int, str]:
    return int(name.partition("_")[2][:9] or 0), name


def _scores(record: dict[str, Any], count: int, where: str) -> list[float]:
    """A teacher's scores of the positive and the negatives.

    A list holds one for each. One number beside one negative is the margin between the two: losses that distil compare
    differences alone, so the negative's score counts as 0. One number beside no negative is the positive's.
    """
    if not any(name in record for name in SCORES):
        return [math.nan] * count
    name = one_of(record, SCORES, where)
    value = _number_or_list(record[name], where, name)
    if isinstance(value, list):
        if len(value) != count:
            raise PipelineError(f"{where}: {name} has {len(value)} scores for {count} passages")
        return [as_score(item, where, name) for item in value]
    if value is None:
        return [math.nan] * count
    if count > 2:
        raise PipelineError(f"{where}: {name} is one number for {count} passages", fix="give a list with one for each")
    score = as_score(value, where, name)
    if count == 1 and score <= 0:
        raise PipelineError(
            f"{where}: a pair with {name} {value!r} is no positive",
            fix="put passages that do not answer into a column `negative` beside their question's positive",
        )
    return [score, 0.0][:count]


def _number_or_list(value: Any, where: str, name: str) -> Any:
    """The cell of a text table holds JSON: a number or a list of numbers."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{where}: {name} must be a number or a list of numbers, found {value!r:.40}") from error
