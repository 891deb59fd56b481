"""The texts on which torch and ONNX are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.run.files import read_jsonl

Kind = Literal["query", "passage"]
Text = TypeVar("Text")
MOST_LINES = 100_000
"""Lines of a file that are looked at; a corpus of millions does not make a better sample."""

_BUILT_IN = (
    "Where is the spare fuse kept?",
    "error E-104 after restart",
    "The pump starts when the tank falls below 20 % and stops at 95 %.",
    "Wie oft muss der Filter gewechselt werden? Alle 500 Betriebsstunden, im Winter öfter.",
    "水温が60度を超えると警報が鳴ります。",
    "def area(radius): return 3.14159 * radius ** 2  # m²",
)


@dataclass(frozen=True)
class ParityText:
    """One text, already formatted by the contract."""

    kind: Kind
    text: str


def parity_texts(folder: Path | None, contract: EncodingContract, count: int) -> list[ParityText]:
    """About `count` queries and passages of many lengths, from one word to more than the model reads.

    A quarter are queries. They are spread evenly over all lengths of the BEIR folder and then mixed, so that a batch
    holds short and long ones and needs padding. `folder` None takes a few built-in texts.
    """
    if folder is None:
        queries, passages = built_in()
    else:
        queries, passages = _read(folder / "queries.jsonl"), passages_of(folder)
    n_queries = max(1, count // 4 - 2)
    n_passages = max(1, count - n_queries - 4)
    edges = ["ok", too_long(passages, max(contract.query_max_length, contract.passage_max_length))]
    queries = [contract.format_query(text) for text in edges + spread(queries, n_queries)]
    passages = [contract.format_passage(text) for text in edges + spread(passages, n_passages)]
    return mixed([ParityText("query", text) for text in queries] + [ParityText("passage", text) for text in passages])


def built_in() -> tuple[list[str], list[str]]:
    """A few queries, and passages of one to six sentences."""
    return list(_BUILT_IN), [" ".join(_BUILT_IN[: 1 + number]) for number in range(len(_BUILT_IN))]


def too_long(texts: list[str], tokens: int) -> str:
    """A text that has to be cut: in no language does a token stand for 16 characters on average."""
    joined = " ".join(texts)
    return (joined * (1 + 16 * tokens // len(joined)))[: 16 * tokens]


def passages_of(folder: Path) -> list[str]:
    """Passages of a BEIR folder, not yet formatted by a contract."""
    return _read(folder / "corpus.jsonl")


def _read(path: Path) -> list[str]:
    """Texts of a BEIR file, titles put before passages as everywhere."""
    plain = EncodingContract()
    texts = []
    for line, row in islice(read_jsonl(path), MOST_LINES):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise PipelineError(f"{path}:{line}: lacks text")
        text = plain.format_passage(row["text"], row.get("title") or "")
        if text.strip():
            texts.append(text)
    if not texts:
        raise PipelineError(f"{path} holds no text", fix="set parity_data_path to a BEIR folder with texts")
    return texts


def spread(texts: Sequence[str], count: int) -> list[str]:
    """`count` texts evenly spread over the lengths, shortest and longest included."""
    ranked = sorted(set(texts), key=lambda text: (len(text), text))
    count = min(count, len(ranked))
    if count == 1:
        return [ranked[len(ranked) // 2]]
    return [ranked[position * (len(ranked) - 1) // (count - 1)] for position in range(count)]


def mixed(texts: list[Text]) -> list[Text]:
    """A fixed order in which neighbours differ in length: take them in strides coprime to their number."""
    stride = next(step for step in (7, 11, 13, 17) if len(texts) % step)
    return [texts[position * stride % len(texts)] for position in range(len(texts))]
