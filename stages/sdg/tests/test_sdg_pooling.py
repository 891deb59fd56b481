"""Pooled judging: several systems find candidates, the judge grades them, the positives go into the pair."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_sdg import pooling, relevance, vectors
from pipeline_sdg.exchange import ask
from pipeline_sdg.local_encoder import LocalEncoder
from pipeline_sdg.pooling import Pool, nearest
from pipeline_sdg.relevance import Label

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id

CITED = "The drum filter sits behind the lower flap and is rinsed every 30 washes."
TEXTS = [
    CITED,
    "Rinse the drum filter after thirty washes.",
    "A kinked drain hose shows the code E21.",
    "Every 30 washes somebody has to clean the sieve of the washing machine.",
    "The library lends books for four weeks.",
    "Members pay a fee of five euros for a lost card.",
]
PAIR = {
    "question": "How often is the drum filter rinsed?",
    "answer": "Every 30 washes.",
    "query_type": "contextual",
    "segment_ids": [1],
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


async def by_letters(texts: list[str], kind: str) -> np.ndarray:
    return np.array([[text.lower().count(letter) for letter in LETTERS] for text in texts], np.float32)


def found(folder: Path, embed: Any, texts: list[str], k: int, *own: str, title: str = "") -> list[str]:
    async def run() -> list[list[Passage]]:
        pool = await Pool.build(((title, text) for text in texts), folder, embed)
        return await pool.candidates([PAIR], [own], k)

    return [passage.text for passage in asyncio.run(run())[0]]


def test_words_of_the_question_and_of_the_answer_find_different_passages(tmp_path) -> None:
    assert found(tmp_path, None, TEXTS, 1, CITED) == [TEXTS[1], TEXTS[3]]
    assert CITED in found(tmp_path, None, TEXTS, 3)
    assert list(tmp_path.iterdir()) == []  # its files have no name


def test_an_encoder_adds_what_words_do_not_find(tmp_path) -> None:
    texts = ["Clean the sieve monthly, says the manual of the dishwasher.", *TEXTS[4:]]
    embed = LocalEncoder("embedded:all-MiniLM-L6-v2").embed
    assert found(tmp_path, None, texts, 1) == []
    assert found(tmp_path, embed, texts, 1) == texts[:1]


def test_equal_texts_count_once_and_titles_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "EMBEDDED_AT_ONCE", 2)

    async def run() -> tuple[Pool, list[list[Passage]]]:
        passages = [("Élan", TEXTS[1]), ("B", TEXTS[1]), ("C", " "), ("", TEXTS[3]), ("D", TEXTS[2])]
        pool = await Pool.build(passages, tmp_path / "new", by_letters)
        return pool, await pool.candidates([PAIR, PAIR], [[], [TEXTS[1]]], 2)

    pool, (first, second) = asyncio.run(run())
    assert len(pool) == 3
    assert {passage.text for passage in first} == {TEXTS[1], TEXTS[2], TEXTS[3]}
    assert first[0] == Passage(passage_id(TEXTS[1]), TEXTS[1], "Élan")
    assert {passage.text for passage in second} == {TEXTS[2], TEXTS[3]}


def test_a_corpus_without_passages_has_no_candidates(tmp_path) -> None:
    assert found(tmp_path, by_letters, [], 3) == []
    assert found(tmp_path, by_letters, ["…"], 3) == ["…"]  # no word, but a vector


def test_vectors_of_two_lengths_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "EMBEDDED_AT_ONCE", 1)

    async def growing(texts: list[str], kind: str) -> np.ndarray:
        return np.ones((len(texts), len(texts[0])), np.float32)

    with pytest.raises(PipelineError, match="vectors of 73 and of 42 numbers"):
        found(tmp_path, growing, TEXTS, 3)


@pytest.mark.parametrize("tile", [1, 3, 100])
def test_nearest_is_exact_for_every_tile(monkeypatch, tile: int) -> None:
    monkeypatch.setattr(pooling, "TILE", tile)
    chance = np.random.default_rng(1)
    queries, passages = chance.integers(-2, 3, (4, 3)) + 0.5, chance.integers(-2, 3, (30, 3)) + 0.5
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        passages / np.linalg.norm(passages, axis=1, keepdims=True)
    ).T
    places = nearest(queries, passages, 5)
    assert places.shape == (4, 5)
    assert np.allclose(np.take_along_axis(cosines, places, 1), -np.sort(-cosines, axis=1)[:, :5])
    assert nearest(queries, passages, 99).shape == (4, 30)


def batch(*lengths: int) -> list[Passage]:
    return [Passage(f"d_{number}", "x" * length) for number, length in enumerate(lengths)]


def test_passages_are_graded_in_batches_within_both_limits() -> None:
    sizes = [request.wanted for request in relevance.exchanges(PAIR, batch(*[10] * 23))]
    assert sizes == [10, 10, 3]
    assert [request.wanted for request in relevance.exchanges(PAIR, batch(9_000, 9_000, 20_000, 5, 5))] == [1, 1, 1, 2]
    assert list(relevance.exchanges(PAIR, [])) == []
    prompt = next(relevance.exchanges(PAIR, [Passage("d", "Text.", "Title")])).messages[0]["content"]
    assert "[1] Title\nText." in prompt and PAIR["question"] in prompt and PAIR["answer"] in prompt


def test_grades_are_checked_one_by_one() -> None:
    given = [(1, 3), (2, "2"), (3, 4), (4, 1), (4, 2), (9, 3), (None, 1)]
    items = [{"number": number, "reason": "", "grade": grade} for number, grade in given]
    labels, faults = relevance.check(json.dumps({"passages": [*items, "text"]}), batch(1, 1, 1, 1))
    assert labels == [Label("d_0", 3), Label("d_1", 2)]
    assert [fault.reason for fault in faults] == [
        "passage 3: grade must be 0 to 3",
        *["there is no such passage, number must be 1 to 4"] * 3,
        "passage 3 has no grade",
        "passage 4 has two grades",
    ]


def test_a_hop_needs_a_part_of_the_answer_other_pairs_all_of_it() -> None:
    labels = [Label("c", 2), Label("b", 3), Label("a", 1), Label("b", 3)]
    assert relevance.positives(PAIR, labels) == ["b"]
    assert relevance.positives({**PAIR, "query_type": "multi_hop"}, labels) == ["b", "c"]
    assert relevance.with_positives(PAIR, labels) == {**PAIR, "extra_positives": ["b"]}


def test_a_missing_grade_is_asked_for_and_the_others_are_not_lost(endpoint, calling) -> None:
    passages = [Passage(passage_id(text), text) for text in TEXTS[1:4]]

    def answer(*grades: tuple[int, int]) -> tuple[int, dict[str, str], str]:
        items = [{"number": number, "reason": "r", "grade": grade} for number, grade in grades]
        return 200, {}, endpoint.chat(json.dumps({"passages": items}))

    endpoint.misbehave = lambda body, number: answer((1, 3), (2, 0)) if number == 1 else answer((3, 3))

    [request] = relevance.exchanges(PAIR, passages)
    labels = calling(lambda caller: ask(caller, request, repair=True), endpoint.url).good
    assert relevance.positives(PAIR, labels) == sorted([passage_id(TEXTS[1]), passage_id(TEXTS[3])])
    assert len(labels) == 3
    assert "passage 3 has no grade" in endpoint.requests[1]["messages"][-1]["content"]
