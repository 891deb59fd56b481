"""The pairs of query and passage on which torch and ONNX are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.beir import read_beir
from pipeline_export.texts import built_in, mixed, spread, too_long

PASSAGES_PER_QUERY = 8
MOST_RELEVANT = 4


@dataclass(frozen=True)
class ParityPair:
    """One query with one passage; the passage is formatted by the contract already."""

    query: str
    passage: str


def parity_pairs(folder: Path | None, contract: EncodingContract, count: int) -> list[ParityPair]:
    """About `count` pairs of many lengths, from one word each to more than the model reads.

    Queries are spread evenly over the lengths of the BEIR folder. Each comes with passages that answer it, as its test
    set says, and with others of all lengths: eight in all, so that rankings can be compared. They are then mixed, so
    that a batch holds short and long pairs. `folder` None takes a few built-in texts, of which none answers another.

    Raises:
        PipelineError: a file of the folder is missing or malformed.
    """
    questions, passages, answers = _built_in() if folder is None else _read(folder, contract)
    long = too_long([*questions, *passages], contract.max_length("pair"))
    pairs = [ParityPair(*texts) for texts in (("ok", "ok"), ("ok", long), (long, "ok"), (questions[0], long))]
    wanted = count - len(pairs)
    chosen = spread(questions, -(-wanted // PASSAGES_PER_QUERY))
    ranked = spread(passages, len(passages))
    step = max(1, min(len(chosen), len(ranked) // PASSAGES_PER_QUERY))
    found: dict[ParityPair, None] = {}
    for number, question in enumerate(chosen):
        mine = answers.get(question, [])[:MOST_RELEVANT]
        others = spread(ranked[number % step :: step], PASSAGES_PER_QUERY - len(mine))
        found |= dict.fromkeys(ParityPair(question, passage) for passage in [*mine, *others])
    return mixed(pairs + list(found)[:wanted])


def _built_in() -> tuple[list[str], list[str], dict[str, list[str]]]:
    return *built_in(), {}


def _read(folder: Path, contract: EncodingContract) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Questions, formatted passages, and the passages that answer each question."""
    found = read_beir(folder)
    passages = {key: contract.format_passage(item.text, item.title) for key, item in found.corpus.items()}
    answers = {text: [passages[answer] for answer in found.qrels[key]] for key, text in found.queries.items()}
    if not answers:
        raise PipelineError(f"{folder} judges no question", fix="set parity_data_path to a BEIR folder with judgements")
    return list(answers), list(passages.values()), answers
