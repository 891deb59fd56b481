from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.mining.mine import ceilings, mine
from pipeline_prep.mining.pool import Compute
from pipeline_prep.mining.task import SOURCES, MiningTask
from pipeline_prep.round_trip import found_again

from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.passages import ArrayPassages
from pipeline.retrieval.world import World
from pipeline.schemas.mining import MiningKeys

COMPUTE = Compute("cpu", query_block=3, passage_block=64, world=World())


def task_of(passages, positives, known=None, given=None, answers=None, hidden=(), texts=None):
    texts = texts or [f"passage number {number}" for number in range(passages)]
    corpus = pa.table({"id": [f"d{n}" for n in range(passages)], "text": texts, "title": [""] * passages})
    rows = len(positives)
    known = [sorted({*some, *more}) for some, more in zip(positives, known or [[]] * rows, strict=True)]
    return MiningTask(
        [f"q{n}" for n in range(rows)], [f"question {n}" for n in range(rows)],
        [[item] for item in answers or [""] * rows], corpus,
        Ragged.of_rows(positives), Ragged.of_rows(known), Ragged.of_rows(given or [[] for _ in range(rows)]),
        np.array(sorted(hidden), np.int64),
    )  # fmt: skip


def rules(**changes):
    return dataclasses.replace(
        MiningKeys(hard_negatives_to_mine=3, near_duplicate_threshold=None, exclude_answers=False), **changes
    )


def line(similarities, task=None, **changes):
    """One question on the unit axis, and passages with exactly these similarities to it; positive is passage 0."""
    vectors = np.array([[value, 0.0] for value in similarities], np.float32)
    task = task or task_of(len(similarities), [[0]])
    mined = mine(
        task, np.array([[1.0, 0.0]], np.float32), ArrayPassages(vectors), rules(**changes), seed=1, compute=COMPUTE
    )
    return mined.negatives[0].tolist(), mined


@pytest.mark.parametrize(
    ("positive", "margin", "kind", "ceiling"),
    [(0.8, 0.95, "perc", 0.76), (-0.2, 0.95, "perc", -0.21), (0.0, 0.9, "perc", 0.0), (0.5, 1.0, "perc", 0.5),
     (0.5, 0.1, "abs", 0.4), (-0.2, 0.1, "abs", -0.3), (0.5, None, "perc", math.inf)],
)  # fmt: skip
def test_ceiling_is_below_the_positive_whatever_its_sign(positive, margin, kind, ceiling):
    assert ceilings(np.array([positive], np.float32), margin, kind)[0] == pytest.approx(ceiling)


def test_a_negative_similarity_lowers_the_ceiling():
    found, mined = line([-0.2, -0.195, -0.205, -0.3])
    # A plain product (-0.2 * 0.95 = -0.19) would let 1 and 2 through.
    assert found == [3] and mined.removed["above the margin"] == 2 and mined.short.tolist() == [True]


def test_the_lowest_positive_sets_the_ceiling_and_the_hardest_come_first():
    found, mined = line([0.9, 0.5, 0.6, 0.47, 0.46, 0.1], task_of(6, [[0, 1]]))
    assert found == [3, 4, 5]
    assert mined.positive_scores == pytest.approx([0.9, 0.5]) and mined.scores == pytest.approx([0.47, 0.46, 0.1])


def test_siblings_and_passages_of_test_questions_are_no_negatives():
    assert line([0.9, 0.4, 0.3], task_of(3, [[0]], known=[[1]]))[0] == [2]
    assert line([0.9, 0.4, 0.3], task_of(3, [[0]], hidden=[1]))[0] == [2]


def test_floor_ceiling_and_no_margin():
    scores = [0.9, 0.88, 0.5, 0.3, 0.1]
    assert line(scores, hard_neg_margin=None)[0] == [1, 2, 3]
    assert line(scores, negative_max_score=0.45)[0] == [3, 4]
    assert line(scores, negative_min_score=0.2)[0] == [2, 3]


def test_the_window_of_ranks_counts_what_lies_above_the_margin_too():
    scores = [0.9, 0.89, 0.6, 0.5, 0.4, 0.3]
    found, mined = line(scores, negative_rank_min=3, negative_rank_max=4)
    assert found == [3, 4] and mined.removed["outside the ranks"] == 2
    assert line(scores, negative_rank_max=1)[0] == []


def test_random_negatives_come_from_the_window_and_do_not_depend_on_other_rows():
    scores = [0.9, *np.linspace(0.8, 0.1, 60)]
    found, _ = line(scores, negative_sampling="random", negative_rank_max=50)
    assert len(found) == 3 and found != [1, 2, 3] and max(found) <= 50
    assert line(scores, negative_sampling="random", negative_rank_max=50)[0] == found
    assert found == sorted(found), "hardest first"
    vectors = np.array([[value, 0.0] for value in scores], np.float32)
    several = task_of(61, [[5], [0]])
    several = dataclasses.replace(several, question_ids=["other", "q0"])
    mined = mine(
        several, np.array([[1.0, 0.0]] * 2, np.float32), ArrayPassages(vectors),
        rules(negative_sampling="random", negative_rank_max=50), seed=1, compute=COMPUTE,
    )  # fmt: skip
    assert mined.negatives[1].tolist() == found


def test_a_row_goes_deeper_until_the_rules_leave_enough():
    texts = ["the answer lies in the old harbour town of the north"] * 200 + [f"other thing {n}" for n in range(5)]
    task = task_of(205, [[0]], answers=["in the old harbour town of the north"], texts=texts)
    found, mined = line([0.9, *np.linspace(0.8, 0.1, 204)], task, exclude_answers=True)
    assert found == [200, 201, 202] and mined.removed["holds the answer"] == 199


def test_negatives_of_the_input_stand_first_but_never_a_known_answer():
    found, mined = line([0.9, 0.5, 0.4, 0.3, 0.2], task_of(5, [[0]], known=[[4]], given=[[4, 3]]))
    hidden = line([0.9, 0.5, 0.4, 0.3, 0.2], task_of(5, [[0]], given=[[4, 3, 3]], hidden=[4]))[0]
    assert hidden == [3, 1, 2], "what answers a test question is nobody's negative, whoever named it"
    assert found == [3, 1, 2] and [SOURCES[item] for item in mined.sources] == ["file", "vectors", "vectors"]


def test_short_rows_are_filled_only_if_asked():
    scores = [0.3, *[0.29] * 4, *[-0.5] * 300]
    assert line(scores, negative_rank_max=4)[0] == []
    found, mined = line(scores, negative_rank_max=4, fill_short_rows=True)
    assert len(found) == 3 and min(found) >= 5 and {SOURCES[item] for item in mined.sources} == {"random"}


def test_words_supply_their_share():
    texts = ["pump pressure valve", "the pump has a valve", "bread and butter", "valve pressure", "sea and wind"]
    task = dataclasses.replace(task_of(5, [[0]], texts=texts), questions=["which valve sets the pump pressure"])
    found, mined = line([0.9, 0.2, 0.8, 0.1, 0.7], task, bm25_share=0.34, hard_negatives_to_mine=3)
    assert found == [2, 4, 1] or found == [2, 4, 3]
    assert [SOURCES[item] for item in mined.sources] == ["vectors", "vectors", "bm25"]
    assert set(line([0.9, 0.2, 0.8, 0.1, 0.7], task, bm25_share=1.0, hard_negatives_to_mine=2)[0]) == {1, 3}


class Says:
    """A rescorer that knows the answers."""

    def __init__(self, *answers):
        self.answers = answers

    def probabilities(self, task, row, passage):
        return np.isin(passage, self.answers).astype(np.float32)


@pytest.mark.parametrize(
    ("action", "apart", "promoted"), [("drop", [], []), ("promote", [], [1]), ("promote", [1], [])]
)
def test_an_answer_that_rescoring_finds_is_dropped_or_promoted(action, apart, promoted):
    """One that stands in a document of another split is never promoted."""
    vectors = np.array([[value, 0.0] for value in (0.9, 0.89, 0.5, 0.4, 0.3)], np.float32)
    mined = mine(
        dataclasses.replace(task_of(5, [[0]]), apart=np.array(apart, np.int64)),
        np.array([[1.0, 0.0]], np.float32), ArrayPassages(vectors),
        rules(rescore="llm", rescore_action=action, hard_neg_margin=None), seed=1, compute=COMPUTE, rescorer=Says(1),
    )  # fmt: skip
    assert mined.promoted[0].tolist() == promoted and mined.negatives[0].tolist() == [2, 3, 4]
    assert mined.removed["found to be an answer"] == 1


def test_mining_no_rows_is_no_error():
    mined = mine(task_of(2, []), np.empty((0, 2), np.float32), ArrayPassages(np.eye(2, dtype=np.float32)), rules(),
                 seed=1, compute=COMPUTE)  # fmt: skip
    assert len(mined.negatives) == 0 and len(mined.short) == 0


@given(
    st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 40), st.integers(1, 6),
    st.sampled_from([0.8, 0.95, 1.0]), st.integers(1, 5), st.integers(1, 50),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_mining_agrees_with_a_plain_loop(seed, queries, passages, wanted, margin, query_block, passage_block):
    random = np.random.default_rng(seed)
    right = random.normal(size=(passages, 4)).astype(np.float16).astype(np.float32)
    left = random.normal(size=(queries, 4)).astype(np.float32)
    positives, known = [], []
    for _ in range(queries):
        chosen = random.permutation(passages)[: random.integers(1, min(4, passages) + 1)].tolist()
        kept = random.integers(1, len(chosen) + 1)
        positives.append(chosen[:kept])
        known.append(chosen[kept:])
    hidden = set(random.permutation(passages)[: random.integers(0, 3)].tolist())
    task = task_of(passages, positives, known, hidden=hidden)
    mined = mine(
        task, left, ArrayPassages(right), rules(hard_negatives_to_mine=wanted, hard_neg_margin=margin), seed=1,
        compute=Compute("cpu", query_block, passage_block, World()),
    )  # fmt: skip
    scores = left.astype(np.float64) @ right.astype(np.float64).T
    for number in range(queries):
        lowest = min(scores[number, item] for item in positives[number])
        ceiling = lowest - (1 - margin) * abs(lowest)
        free = [n for n in range(passages) if n not in {*positives[number], *known[number]} | hidden]
        expected = sorted((n for n in free if scores[number, n] <= ceiling), key=lambda n: -scores[number, n])[:wanted]
        assert mined.negatives[number].tolist() == expected
    assert np.isfinite(mined.scores).all() and len(mined.scores) == len(mined.negatives.values)
    assert mined.short.tolist() == [len(mined.negatives[n]) < wanted for n in range(queries)]


def test_round_trip_keeps_a_row_whose_positive_is_among_the_nearest():
    passages = ArrayPassages(np.array([[value, 0.0] for value in (0.9, 0.8, 0.7, 0.1)], np.float32))
    known = Ragged.of_rows([[0], [2], [1, 3], [0, 3]])
    found = found_again(np.array([[1.0, 0.0]] * 4, np.float32), passages, known, 2, COMPUTE)
    assert found.tolist() == [True, False, True, True]
    assert found_again(np.empty((0, 2), np.float32), passages, Ragged.of_rows([]), 2, COMPUTE).tolist() == []
