"""BM25 over title and text: two fields, or one."""

from __future__ import annotations

import pytest
from pipeline_eval.bm25 import Bm25Search, Bm25System

from pipeline.records.passages import Passage

CORPUS = {
    "named": Passage("named", "lifts water out of deep wells, asks little care, works all year, sails turn it", "Pump"),
    "told": Passage("told", "far beyond hills stands pump, lifting water nearby", "Water"),
    "other": Passage("other", "storm", "Sails"),
}


@pytest.mark.parametrize(("fields", "best"), [("separate", "named"), ("joined", "told")])
def test_a_title_alone_weighs_more_than_a_word_among_many(fields, best):
    found = Bm25Search(CORPUS, fields).search({"q": "pump"}, 2)["q"]
    assert set(found) == {"named", "told"}
    assert max(found, key=found.get) == best


def test_the_two_are_the_same_without_titles():
    plain = {name: Passage(name, item.text, "") for name, item in CORPUS.items()}
    queries = {"q": "pump water", "none": "the of"}
    assert Bm25Search(plain, "separate").search(queries, 3) == Bm25Search(plain, "joined").search(queries, 3)


def test_results_of_one_form_are_never_taken_for_the_other_s():
    assert Bm25System("separate").identity.digest() != Bm25System("joined").identity.digest()
