from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.mining.mine import ceilings, mine
from pipeline_prep.mining.report import mining_section
from pipeline_prep.round_trip import found_again
from pipeline_prep.vectors import Vectors

from pipeline.records.training import TrainingRow


def row(number, *positives, known=()):
    extra = {"known_pos_ids": [*positives, *known]}
    return TrainingRow(f"q{number}", f"question {number}", "corpus", list(positives), [], extra=extra)


def line(*similarities):
    """One question on the unit axis, and passages with exactly these similarities to it."""
    passages = np.array([[value, 0.0] for value in similarities], np.float32)
    names = {f"d{number}": number for number in range(len(similarities))}
    return Vectors(passages, np.array([[1.0, 0.0]], np.float32), names, {"q0": 0})


def mine_line(similarities, item, wanted=3, margin=0.95, kept_for_test=()):
    report = mine([item], line(*similarities), wanted=wanted, margin=margin, kept_for_test=set(kept_for_test))
    return item, report


@pytest.mark.parametrize(
    ("positive", "margin", "ceiling"), [(0.8, 0.95, 0.76), (-0.2, 0.95, -0.21), (0.0, 0.9, 0.0), (0.5, 1.0, 0.5)]
)
def test_ceiling_is_below_the_positive_whatever_its_sign(positive, margin, ceiling):
    assert ceilings(np.array([positive], np.float32), margin)[0] == pytest.approx(ceiling)


def test_a_negative_similarity_lowers_the_ceiling():
    item, report = mine_line([-0.2, -0.195, -0.205, -0.3], row(0, "d0"))
    # A plain product (-0.2 * 0.95 = -0.19) would let d1 and d2 through.
    assert item.negatives == ["d3"]
    assert (report.above_ceiling, report.short) == (2, 1)


def test_the_lowest_positive_sets_the_ceiling_and_the_hardest_come_first():
    item, _ = mine_line([0.9, 0.5, 0.6, 0.47, 0.46, 0.1], row(0, "d0", "d1"))
    assert item.negatives == ["d3", "d4", "d5"]
    assert item.positive_scores == pytest.approx({"d0": 0.9, "d1": 0.5})
    assert item.negative_scores == pytest.approx({"d3": 0.47, "d4": 0.46, "d5": 0.1})


def test_positives_that_were_cut_off_are_no_negatives():
    item, report = mine_line([0.9, 0.4, 0.3], row(0, "d0", known=["d1"]))
    assert item.negatives == ["d2"] and report.known_positives == 2


def test_passages_of_test_questions_are_no_negatives():
    item, report = mine_line([0.9, 0.4, 0.3], row(0, "d0"), kept_for_test=["d1"])
    assert item.negatives == ["d2"] and report.kept_for_test == 1


def test_fewer_are_written_and_counted_never_a_masked_one():
    item, report = mine_line([0.9, 0.89, 0.88], row(0, "d0"), wanted=5)
    assert item.negatives == [] and item.to_json()["neg_doc"] == []
    assert (report.short, report.none, report.negatives, report.above_ceiling) == (1, 1, 0, 2)
    assert mining_section(report)["negative_similarity"] == {}
    json.dumps(mining_section(report), allow_nan=False)


def test_mining_no_rows_is_no_error():
    report = mine([], line(0.5, 0.1), wanted=3, margin=0.95, kept_for_test=set())
    assert (report.rows, report.negatives) == (0, 0)


@given(
    st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 40), st.integers(1, 6),
    st.sampled_from([0.8, 0.95, 1.0]), st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_mining_agrees_with_a_plain_loop(seed, queries, passages, wanted, margin, block):
    random = np.random.default_rng(seed)
    vectors = Vectors(
        random.normal(size=(passages, 4)).astype(np.float32), random.normal(size=(queries, 4)).astype(np.float32),
        {f"d{n}": n for n in range(passages)}, {f"q{n}": n for n in range(queries)},
    )  # fmt: skip
    rows = []
    for number in range(queries):
        chosen = random.permutation(passages)[: random.integers(1, min(4, passages) + 1)]
        kept = random.integers(1, len(chosen) + 1)
        names = [f"d{n}" for n in chosen]
        rows.append(row(number, *names[:kept], known=names[kept:]))
    hidden = {f"d{n}" for n in random.permutation(passages)[: random.integers(0, 3)]}
    report = mine(rows, vectors, wanted=wanted, margin=margin, kept_for_test=hidden, query_block=block)

    scores = vectors.questions.astype(np.float64) @ vectors.passages.astype(np.float64).T
    for number, item in enumerate(rows):
        lowest = min(scores[number, int(name[1:])] for name in item.positives)
        ceiling = lowest - (1 - margin) * abs(lowest)
        free = [n for n in range(passages) if f"d{n}" not in item.known_positives | hidden]
        expected = sorted((n for n in free if scores[number, n] <= ceiling), key=lambda n: -scores[number, n])[:wanted]
        assert item.negatives == [f"d{n}" for n in expected]
        assert not set(item.negatives) & item.known_positives
        assert all(math.isfinite(value) for value in item.negative_scores.values())
        json.dumps(item.to_json(), allow_nan=False)
    assert report.short == sum(len(item.negatives) < wanted for item in rows)
    assert report.negatives == sum(len(item.negatives) for item in rows)


def test_round_trip_keeps_a_row_whose_positive_is_among_the_nearest():
    similarities = [0.9, 0.8, 0.7, 0.1]
    cases = {("d0",): True, ("d2",): False, ("d3", "d1"): True}
    for positives, expected in cases.items():
        assert found_again([row(0, *positives)], line(*similarities), 2, 8).tolist() == [expected]
    assert found_again([row(0, "d3", known=["d0"])], line(*similarities), 2, 8).tolist() == [True]
    assert found_again([], line(*similarities), 2, 8).tolist() == []
