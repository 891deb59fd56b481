"""Duplicates over the corpus: exact whatever the blocks, the best of a group stays."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_sdg import local_encoder, similarity
from pipeline_sdg.similarity import duplicates, rank_of, word_vectors

from pipeline.errors import PipelineError

QUESTIONS = [
    "What does the code E21 mean on the display?",
    "How do I rinse the drum filter?",
    "What does the code E22 mean on the display?",
    "how do I rinse the drum filter",
    "Is the hose kinked?",
]
phrases = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5).map(" ".join), min_size=1, max_size=40)


def greedy(vectors: np.ndarray, threshold: float, order: list[int]) -> dict[int, int]:
    """The definition, pair by pair."""
    kept: list[int] = []
    lost: dict[int, int] = {}
    lengths = np.linalg.norm(vectors, axis=1)
    for row in order:
        cosines = [float(vectors[row] @ vectors[other] / max(lengths[row] * lengths[other], 1e-12)) for other in kept]
        near = [other for other, cosine in zip(kept, cosines, strict=True) if min(cosine, 1) > threshold]
        if near:
            lost[row] = near[0]
        else:
            kept.append(row)
    return lost


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", 3)
    monkeypatch.setattr(similarity, "TILE", 4)
    monkeypatch.setattr(similarity, "CANDIDATES", 5)
    monkeypatch.setattr(similarity, "_VERIFIED", 2)


def test_codes_keep_questions_apart() -> None:
    assert duplicates(word_vectors(QUESTIONS), 0.9) == {3: 1}


def test_rows_have_length_one_and_rare_words_weigh_more() -> None:
    rows = word_vectors(QUESTIONS)
    assert np.allclose(np.asarray(rows.multiply(rows).sum(axis=1)).ravel(), 1)
    first = rows[0].toarray().ravel()
    assert first.argmax() == 4  # the fifth word met: e21
    assert word_vectors([]).shape[0] == 0 and duplicates(word_vectors([]), 0.5) == {}
    assert duplicates(word_vectors(["?", "!"]), 0.0) == {}  # without words nothing is alike


def test_scripts_without_spaces_are_compared_by_pairs_of_characters() -> None:
    rows = word_vectors(["如何清洗滚筒过滤器", "如何清洗滚筒过滤器呢", "代码表示什么意思", "x"])
    assert duplicates(rows, 0.8) == {1: 0}


def test_the_best_of_a_group_stays_not_the_first() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [1, 0.02], [0, 0.5]], np.float32)
    assert duplicates(vectors, 0.9) == {1: 0, 3: 0, 4: 2}
    rank = np.array([[7, 2], [9, 1], [0, 0], [9, 3], [0, 0]])
    assert duplicates(vectors, 0.9, rank) == {0: 3, 1: 3, 4: 2}  # of equals (2 and 4) the earlier
    assert duplicates(vectors, 0.9, rank[:, 0]) == {0: 1, 3: 1, 4: 2}


def test_a_chain_of_likeness_does_not_swallow_its_end_and_the_threshold_is_strict() -> None:
    angles = np.deg2rad([0, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert duplicates(vectors, 0.9) == {1: 0}
    assert duplicates(np.repeat(vectors, 2, axis=0), 1.0) == {}


@pytest.mark.usefixtures("small_blocks")
def test_blocks_change_nothing() -> None:
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(60, 3)).astype(np.float32)
    rank = chance.integers(0, 4, 60)
    order = sorted(range(60), key=lambda row: -rank[row])
    for threshold in (0.3, 0.9, 0.99):
        assert duplicates(vectors, threshold, rank) == dict(sorted(greedy(vectors, threshold, order).items()))


@settings(max_examples=60, deadline=None)
@given(phrases, st.sampled_from([0.0, 0.31, 0.57, 0.83, 0.97]), st.integers(0, 3))
def test_looking_at_rare_words_alone_misses_nothing(questions: list[str], threshold: float, levels: int) -> None:
    rank = np.array([len(question) % (levels + 1) for question in questions])
    order = sorted(range(len(questions)), key=lambda row: -rank[row])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", 4)
        patch.setattr(similarity, "CANDIDATES", 7)
        rows = word_vectors(questions)
        dropped = duplicates(rows, threshold, rank)
    assert dropped == dict(sorted(greedy(rows.toarray(), threshold, order).items()))


def test_a_memory_mapped_file_will_do(tmp_path) -> None:
    np.save(tmp_path / "v.npy", np.array([[1, 0], [2, 0], [0, 3]], np.float32))
    assert duplicates(np.load(tmp_path / "v.npy", mmap_mode="r"), 0.9) == {1: 0}


def test_the_harder_pair_ranks_first_and_one_that_may_be_dropped_last() -> None:
    pair = {"question_complexity": 3}
    assert rank_of(pair) < rank_of({**pair, "question_complexity": 4})
    assert rank_of({**pair, "query_type": "multi_hop", "question_complexity": 5}, True) < rank_of(pair, True)


async def vectors_of(encoder: local_encoder.LocalEncoder) -> tuple[np.ndarray, np.ndarray]:
    texts = ["How do I rinse the drum filter?", "How is the filter of the drum rinsed?", "Who pays the library fee?"]
    return await encoder.embed(texts, "query"), await encoder.embed(texts[:1], "passage")


def test_the_local_encoder_finds_what_words_do_not() -> None:
    import asyncio

    queries, passages = asyncio.run(vectors_of(local_encoder.LocalEncoder("embedded:all-MiniLM-L6-v2")))
    assert queries.dtype == np.float32 and passages.shape == (1, queries.shape[1])
    assert duplicates(queries, 0.8) == {1: 0}


def test_without_the_extra_the_local_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("pipeline.retrieval.encoder")
    monkeypatch.setitem(__import__("sys").modules, "pipeline.retrieval.encoder", None)
    with pytest.raises(PipelineError, match="torch") as raised:
        local_encoder.LocalEncoder("embedded:all-MiniLM-L6-v2")
    assert "--extra local" in str(raised.value.fix)
