"""Which model mines for a reranker: the tuned embedder, or what stands in for it until it is trained."""

from __future__ import annotations

import pytest
from pipeline_prep.model import model_of

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError

SMALL = "embedded:all-MiniLM-L6-v2"


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The demo's, seen from an empty folder: the embed demo was not run there."""
    monkeypatch.chdir(tmp_path)
    return resolve("rerank", "prep", "demo").config


def test_the_fallback_mines_until_the_embedder_is_trained(config, tmp_path):
    assert model_of(config, ()).reference == SMALL
    tuned = tmp_path / config.base_model
    tuned.mkdir(parents=True)
    EncodingContract(base_model=SMALL, query_prefix="ask: ", query_max_length=64, passage_max_length=64).save(tuned)
    model = model_of(config, ())
    assert model.reference == config.base_model
    assert model.contract.query_prefix == "ask: "  # a trained model comes with its own contract


def test_a_model_that_a_person_names_is_never_replaced(config):
    with pytest.raises(PipelineError, match=r"base_model: .*does not exist") as caught:
        model_of(config, {"base_model"})
    assert "set base_model" in caught.value.fix
