"""Which passages of the corpus answer a question too: a model grades those that nobody cited.

The scale of four grades is that of TREC's passage task as given to language models by Upadhyay et al. 2024,
https://arxiv.org/abs/2406.06519; the wording is our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.records.passages import Passage
from pipeline_sdg.endpoints import JUDGE
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.forms import TEXT, list_of, object_of, whole_number
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import list_in_reply
from pipeline_sdg.templates import DEFAULT, Prompts

ANSWERS, STATES_A_PART = 3, 2
PASSAGES_AT_ONCE = 10
CHARACTERS_AT_ONCE = 16_000


@dataclass(frozen=True)
class Label:
    """What a passage is worth for a question: 0 other matter, 1 same matter, 2 a part of the answer, 3 the answer."""

    passage: str
    grade: int


def exchanges(pair: Pair, passages: Sequence[Passage], prompts: Prompts = DEFAULT) -> Iterator[Exchange]:
    """Requests that grade these passages for one question, a batch in each. Good parts are `Label`s."""
    for batch in _batches(passages):
        yield _exchange(pair, batch, prompts)


def positives(pair: Pair, labels: Iterable[Label]) -> list[str]:
    """The passages that answer the question, by id. For one of several hops a part of the answer will do."""
    enough = STATES_A_PART if pair["query_type"] == "multi_hop" else ANSWERS
    return sorted({label.passage for label in labels if label.grade >= enough})


def with_positives(pair: Pair, labels: Iterable[Label]) -> Pair:
    """The pair with `extra_positives`: ids (`pipeline.records.passages.passage_id`) of passages found beside its own.

    They may stand in other documents, so segment ids cannot name them.
    """
    return {**pair, "extra_positives": positives(pair, labels)}


def schema(count: int) -> dict[str, Any]:
    number = {"type": "integer", "enum": list(range(1, count + 1))}
    grade = {"type": "integer", "enum": list(range(ANSWERS + 1))}
    return object_of({"passages": list_of(object_of({"number": number, "reason": TEXT, "grade": grade}), count, count)})


def check(reply: str, batch: Sequence[Passage]) -> tuple[list[Label], list[Fault]]:
    """A label for every passage that has one proper grade, in order, and what is wrong with the others."""
    items, whole = list_in_reply(reply, "passages")
    faults = [] if whole else [Fault("the answer is not one whole JSON object with a list `passages`")]
    grades: dict[int, set[int]] = {}
    for item in items:
        number, grade = (
            whole_number(item.get(name)) if isinstance(item, dict) else None for name in ("number", "grade")
        )
        if number not in range(1, len(batch) + 1):
            faults.append(Fault(f"there is no such passage, number must be 1 to {len(batch)}", item))
        elif grade not in range(ANSWERS + 1):
            faults.append(Fault(f"passage {number}: grade must be 0 to {ANSWERS}", item))
        else:
            grades.setdefault(number, set()).add(grade)
    labels = []
    for number, passage in enumerate(batch, 1):
        found = grades.get(number, set())
        if len(found) == 1:
            labels.append(Label(passage.id, *found))
        else:
            faults.append(Fault(f"passage {number} has {'two grades' if found else 'no grade'}"))
    return labels, faults


def _exchange(pair: Pair, batch: Sequence[Passage], prompts: Prompts) -> Exchange:
    shown = "\n\n".join(
        f"[{number}] {passage.title}\n{passage.text}" if passage.title else f"[{number}] {passage.text}"
        for number, passage in enumerate(batch, 1)
    )
    prompt = prompts.render(
        "relevance", passages=shown, question=pair["question"], answer=pair["answer"], count=len(batch)
    )
    return Exchange(
        JUDGE,
        [{"role": "user", "content": prompt}],
        schema(len(batch)),
        lambda reply: check(reply, batch),
        wanted=len(batch),
        same=lambda label: label.passage,
    )


def _batches(passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    """Runs of passages within both limits; a passage that is too long alone makes a batch of one."""
    batch: list[Passage] = []
    size = 0
    for passage in passages:
        length = len(passage.text) + len(passage.title)
        if batch and (len(batch) == PASSAGES_AT_ONCE or size + length > CHARACTERS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(passage)
        size += length
    if batch:
        yield batch
