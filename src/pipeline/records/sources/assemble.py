"""Several sources put together: one passage table, known positives over all of them, and a drawn share of the rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.sources.draft import Part
from pipeline.records.sources.passages import merge
from pipeline.records.sources.ragged import Ragged
from pipeline.records.sources.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("pipeline")


def assemble(name: str, parts: Sequence[Part]) -> Rows:
    """All rows of all parts in order.

    A negative that is known to answer its question (from any row that asks it, or by its text) is left out.

    Raises:
        PipelineError: a row names a passage without text.
    """
    import pyarrow as pa

    named = [
        np.unique(np.concatenate([part.positives.values, part.negatives.values, part.known.values])) for part in parts
    ]
    passages, places = merge([part.passages.take(pa.array(one)) for part, one in zip(parts, named, strict=True)])
    lookups = []
    for part, one, place in zip(parts, named, places, strict=True):
        lookups.append(np.zeros(len(part.passages), np.int64))
        lookups[-1][one] = place
    _check_texts(parts, lookups, passages)
    fields = {
        field: _joined([_renumbered(getattr(part, field), lookup) for part, lookup in zip(parts, lookups, strict=True)])
        for field in ("positives", "negatives", "known")
    }
    questions = pa.concat_arrays([part.questions for part in parts])
    known = known_positives(questions, fields["positives"], fields["known"])
    negatives = fields["negatives"]
    kept = _first_of_each(negatives) & ~_members(negatives, known, len(passages))
    dropped = int((_first_of_each(negatives) & ~kept).sum())
    if dropped:
        log.info("%s: %d negatives are known positives of their question and are left out", name, dropped)
    return Rows(
        name=name,
        question_ids=pa.concat_arrays([part.question_ids for part in parts]),
        questions=questions,
        query_prefixes=pa.concat_arrays([part.query_prefixes for part in parts]),
        positives=fields["positives"],
        negatives=negatives.keep(kept),
        known=known,
        positive_scores=np.concatenate([part.positive_scores for part in parts]),
        negative_scores=np.concatenate([part.negative_scores for part in parts])[kept],
        passages=passages,
        corpora=tuple(_distinct([part.passages for part in parts])),
        files=tuple(dict.fromkeys(file for part in parts for file in part.files)),
    )


def choose(rows: Rows, numbers: np.ndarray) -> Rows:
    """These rows alone, with the passages that they name."""
    import pyarrow as pa

    if len(numbers) == len(rows):
        return rows
    taken = {field: getattr(rows, field).rows(numbers) for field in ("positives", "negatives", "known")}
    used = np.unique(np.concatenate([ragged.values for ragged in taken.values()]))
    lookup = np.zeros(len(rows.passages), np.int64)
    lookup[used] = np.arange(len(used))
    columns = {
        name: getattr(rows, name).take(pa.array(numbers)) for name in ("question_ids", "questions", "query_prefixes")
    }
    return replace(
        rows,
        **columns,
        **{field: _renumbered(ragged, lookup) for field, ragged in taken.items()},
        positive_scores=rows.positive_scores[rows.positives.positions(numbers)[1]],
        negative_scores=rows.negative_scores[rows.negatives.positions(numbers)[1]],
        passages=rows.passages.take(pa.array(used)).combine_chunks(),
    )


def known_positives(questions: pa.Array, positives: Ragged, known: Ragged) -> Ragged:
    """For each row every passage known to answer its question, from all rows that ask the same; ascending."""
    import pyarrow.compute as pc

    asked = np.asarray(pc.index_in(questions, value_set=pc.unique(questions)), np.int64)
    question = np.concatenate([asked[positives.row_numbers], asked[known.row_numbers]])
    passage = np.concatenate([positives.values, known.values])
    pairs = np.unique(np.stack([question, passage], axis=1), axis=0)
    by_question = Ragged.of_counts(np.bincount(pairs[:, 0], minlength=asked.max(initial=-1) + 1), pairs[:, 1])
    return by_question.rows(asked)


def _members(items: Ragged, sets: Ragged, size: int) -> np.ndarray:
    """bool: whether a row's value stands in the same row of `sets`; values are below `size`."""
    return np.isin(items.row_numbers * size + items.values, sets.row_numbers * size + sets.values)


def _first_of_each(items: Ragged) -> np.ndarray:
    """bool: whether a value stands in its row for the first time."""
    mask = np.zeros(len(items.values), bool)
    pairs = np.stack([items.row_numbers, items.values], axis=1)
    mask[np.unique(pairs, axis=0, return_index=True)[1]] = True
    return mask


def _check_texts(parts: Sequence[Part], lookups: Sequence[np.ndarray], passages: pa.Table) -> None:
    import pyarrow.compute as pc

    blank = pc.and_(*(pc.equal(pc.utf8_trim_whitespace(passages[name]), "") for name in ("text", "title")))
    empty = np.asarray(blank, bool)
    if not empty.any():
        return
    for part, lookup in zip(parts, lookups, strict=True):
        for field, items in (("pos_doc", part.positives), ("neg_doc", part.negatives)):
            wrong = np.flatnonzero(empty[lookup[items.values]])
            if len(wrong):
                row = int(items.row_numbers[wrong[0]])
                passage = part.passages["id"][int(items.values[wrong[0]])].as_py()
                raise PipelineError(
                    f"{part.place_of(row)} ({part.question_ids[row]}): "
                    f"{field} names passage {passage!r}, which is empty",
                    fix="leave empty passages out of the corpus and of the rows",
                )


def _renumbered(items: Ragged, lookup: np.ndarray) -> Ragged:
    return Ragged(items.offsets, lookup[items.values])


def _joined(parts: Sequence[Ragged]) -> Ragged:
    counts = np.concatenate([part.counts for part in parts])
    return Ragged.of_counts(counts, np.concatenate([part.values for part in parts]))


def _distinct(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Each table once: sources of one corpus share it."""
    found: list[pa.Table] = []
    for table in tables:
        if not any(table.equals(other) for other in found):
            found.append(table)
    return found
