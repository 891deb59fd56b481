"""Builders of small SDG records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

UNSET = object()


def build_record(
    files: str | list[str], chunks: list[str], pairs: list[tuple[str, list[int]]], scores: Any = UNSET, **more: Any
) -> dict[str, Any]:
    """A record with chunk ids 1, 2, …; `pairs` are (question, segment ids). Without `scores` every pair gets a 9."""
    record = {
        "file_name": [files] if isinstance(files, str) else files,
        "chunks": [{"chunk_id": number, "text": text} for number, text in enumerate(chunks, 1)],
        "deduplicated_qa_pairs": [
            {
                "question": question,
                "answer": f"answer to {question}",
                "query_type": "contextual",
                "reasoning_type": "factual",
                "question_complexity": 2,
                "segment_ids": segments,
                "hop_count": 1,
                "hop_contexts": [],
            }
            for question, segments in pairs
        ],
    }
    if scores is not None:
        held = [9.0] * len(pairs) if scores is UNSET else scores
        record["qa_evaluations"] = {"evaluations": [{"overall": {"score": score}} for score in held]}
    return {**record, **more}


@pytest.fixture(scope="session")
def record():
    return build_record


@pytest.fixture(scope="session")
def corpus_records() -> list[dict[str, Any]]:
    """Twelve documents on different things: two good questions each, and a wrong one that fits another document."""
    topics = [
        ("volcano", "Lava", "magma chambers feed the eruption", "ash clouds stop air traffic"),
        ("bread", "Dough", "yeast makes the dough rise", "a hot oven browns the crust"),
        ("chess", "The rook", "castling moves king and rook together", "a passed pawn wants to promote"),
        ("bees", "The hive", "the queen lays every egg", "workers dance to show where flowers are"),
        ("tides", "The sea", "the moon pulls the water twice a day", "spring tides follow the full moon"),
        ("bicycle", "The chain", "a derailleur shifts the chain between sprockets", "disc brakes work in the rain"),
        ("violin", "The bow", "rosin lets the bow grip the string", "the soundpost carries vibration to the back"),
        ("cheese", "Milk", "rennet curdles the milk", "blue mould grows along needle holes"),
        ("glacier", "Ice", "crevasses open where the ice bends", "moraines mark how far the ice once came"),
        ("printing", "Type", "movable type is set letter by letter", "ink sticks to raised metal"),
        ("coffee", "Beans", "roasting turns green beans brown", "fine grinds extract faster"),
        ("sailing", "The keel", "the keel keeps the boat from drifting sideways", "tacking zigzags into the wind"),
    ]
    records = []
    for number, (name, start, first, second) in enumerate(topics):
        elsewhere = topics[number - 1][2]
        chunks = [f"{start} matters: {first}.", f"More on {name}: {second}.", f"Notes about {name}, part three."]
        pairs = [(f"What is said of {first}?", [1]), (f"When do {second}?", [2]), (f"Wrongly filed: {elsewhere}?", [3])]
        records.append(build_record(f"{name}.txt", chunks, pairs))
    return records


@pytest.fixture(scope="session")
def write_records():
    def write(folder: Path, records: list[dict[str, Any]], name: str = "generated_batch0_0_11.json") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(records), encoding="utf-8")
        return folder

    return write


def build_mining_task(passages: list[str], questions: list[str], positives: list[list[int]], **more: Any) -> Any:
    """A task over plain texts; `known` (the positives), `given`, `titles`, `answers` and `hidden` may be added."""
    import numpy as np
    import pyarrow as pa
    from pipeline_prep.mining.task import MiningTask

    from pipeline.records.sources.ragged import Ragged

    def ragged(lists: list[list[int]]) -> Ragged:
        counts = np.array([len(item) for item in lists], np.int64)
        return Ragged.of_counts(counts, np.array([value for item in lists for value in item], np.int64))

    texts = {"text": passages, "title": more.get("titles") or [""] * len(passages)}
    columns = {name: pa.array(values, pa.large_string()) for name, values in texts.items()}
    ids = pa.array([f"d{number}" for number in range(len(passages))], pa.large_string())
    return MiningTask(
        [f"q{number}" for number in range(len(questions))],
        questions,
        [[answer] for answer in more.get("answers") or [""] * len(questions)],
        pa.table({"id": ids, **columns}),
        ragged(positives),
        ragged([sorted(set(item)) for item in more.get("known") or positives]),
        ragged(more.get("given") or [[]] * len(questions)),
        np.array(more.get("hidden") or [], np.int64),
    )


@pytest.fixture(scope="session")
def mining_task():
    return build_mining_task
