"""Rankings of logits that no real model is asked for: extreme, equal and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pipeline_deploy.app import create_app
from pipeline_deploy.artifacts import Artifact
from pipeline_deploy.families import RERANK
from pipeline_deploy.serving import Limits
from starlette.testclient import TestClient

from pipeline.contract import EncodingContract

CONTRACT = EncodingContract(family="rerank", passage_prefix="text: ")


class Scorer:
    """Gives the number that a passage holds; remembers the pairs and how they were to be cut."""

    contract = CONTRACT

    def tokenize(self, pairs, truncate):
        self.pairs, self.truncate = pairs, truncate
        return [[number] for number in range(len(pairs))]

    def forward(self, tokens):
        numbers = [float(passage.removeprefix("text: ")) for _, passage in self.pairs]
        return np.array([numbers[item[0]] for item in tokens], dtype=np.float32)


@pytest.fixture
def scorer():
    return Scorer()


@pytest.fixture
def client(scorer):
    with TestClient(create_app(RERANK, Artifact(Path(), CONTRACT, {}), scorer, "custom", Limits())) as client:
        yield client


def test_logits_are_ordered_also_where_their_scores_are_equal(client):
    """Beyond about 17 the sigmoid of fp32 is 1 for all."""
    texts = ["30", "-200", "60", "0", "60", "-3e38", "3e38"]
    results = client.post("/v1/rerank", json={"model": "custom", "query": "q", "documents": texts}).json()["results"]
    assert [item["index"] for item in results] == [6, 2, 4, 0, 3, 1, 5]
    assert [item["relevance_score"] for item in results] == [1, 1, 1, 1, 0.5, 0, 0]
    ranked = client.post("/rerank", json={"query": "q", "texts": texts, "raw_scores": True}).json()
    assert [item["score"] for item in ranked[:3]] == pytest.approx([3e38, 60, 60])


@pytest.mark.parametrize("path", [route.path for route in RERANK.routes])
@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_score_that_is_no_number_is_never_given_out(client, path, broken):
    texts = {"texts": ["1", broken], "documents": ["1", broken], "passages": ["1", broken]}
    reply = client.post(path, json={"model": "custom", "query": "q", **texts})
    assert reply.status_code == 500 and reply.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("/v1/ranking", {}, "END"),
        ("/v1/ranking", {"truncate": "NONE"}, "NONE"),
        ("/v1/ranking", {"truncate": "START"}, "START"),
        ("/v1/rerank", {}, "END"),
        ("/rerank", {}, "END"),
        ("/rerank", {"truncate": True, "truncation_direction": "left"}, "START"),
        ("/rerank", {"truncate": False, "truncation_direction": "Left"}, "NONE"),
    ],
)
def test_passages_reach_the_model_formatted_and_with_the_askers_wish(client, scorer, path, more, expected):
    texts = {"texts": ["1"], "documents": ["1"], "passages": ["1"]}
    assert client.post(path, json={"model": "custom", "query": "q", **texts, **more}).status_code == 200
    assert (scorer.pairs, scorer.truncate) == ([("q", "text: 1")], expected)
