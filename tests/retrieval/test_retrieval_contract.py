"""The contract: what old files mean, what both families take from a configuration, foreign metadata."""

from __future__ import annotations

import json

import pytest

from pipeline.contract import FILE_NAME, EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.schemas.finetune import EmbedFinetuneConfig, RerankFinetuneConfig


def test_digests_of_contracts_made_before_new_fields_came_stay():
    assert EncodingContract().digest() == "03f195fdc3d23400"
    assert EncodingContract(query_prefix="q: ", pooling="cls", dimension=384).digest() == "ecf62c93406b69cb"
    changed = [EncodingContract(share_encoder=False), EncodingContract(rerank_max_length=512), EncodingContract()]
    assert len({contract.digest() for contract in changed}) == 3


def test_an_old_file_still_loads_and_a_new_one_comes_back_equal(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps({"schema_version": 1, "family": "embed", "query_prefix": "q: "}))
    assert EncodingContract.load(tmp_path) == EncodingContract(query_prefix="q: ")
    new = EncodingContract("rerank", rerank_max_length=99, prompt_template="{query}{passage}", share_encoder=False)
    new.save(tmp_path)
    assert EncodingContract.load(tmp_path) == new


def test_each_family_takes_its_own_keys():
    embed = EncodingContract.from_config(EmbedFinetuneConfig(share_encoder=False, pooling="last", query_prefix="Q:"))
    assert (embed.family, embed.share_encoder, embed.pooling, embed.query_prefix) == ("embed", False, "last", "Q:")
    assert embed.rerank_max_length is None and embed.prompt_template is None
    config = RerankFinetuneConfig(rerank_max_length=77, prompt_template=None, pooling="cls")
    rerank = EncodingContract.from_config(config, "rerank")
    assert (rerank.family, rerank.max_length("pair"), rerank.pooling) == ("rerank", 77, "cls")
    assert rerank.format_passage("text", "Title") == "Title text"
    assert rerank.under(config, ["rerank_max_length", "learning_rate"], "it") is rerank
    with pytest.raises(PipelineError, match="rerank_max_length=77 on the command line contradicts 78"):
        rerank.with_(rerank_max_length=78).under(config, ["rerank_max_length"], "it")


def test_a_pair_is_formatted_without_reading_braces_in_texts():
    contract = EncodingContract("rerank", prompt_template="p:{passage} {x} q:{query}")
    assert contract.format_pair("{passage} {0}", "{query} {") == "p:{query} { {x} q:{passage} {0}"
    with pytest.raises(PipelineError, match="once each"):
        EncodingContract("rerank").format_pair("a", "b")


def foreign(folder, modules: list[str], pooling: dict, **settings: object) -> EncodingContract:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{m}"} for m in modules]))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 99}))
    return contract_of_model(folder)


def test_foreign_metadata_is_read_and_what_we_lack_is_refused(tmp_path):
    plain, old = ["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True, "pooling_mode_cls_token": False}
    found = foreign(tmp_path, [*plain, "Normalize"], old, prompts={"query": "q: ", "document": "d: "})
    assert (found.pooling, found.normalize, found.query_max_length) == ("weighted_avg", True, 99)
    assert (found.query_prefix, found.passage_prefix) == ("q: ", "d: ")
    assert foreign(tmp_path, plain, {"pooling_mode": "lasttoken"}).pooling == "last"
    assert foreign(tmp_path, ["Transformer", "MultiVectorMask"], {}).pooling == "colbert"
    reranker = foreign(
        tmp_path, ["Transformer", "Pooling", "Dense"], {"pooling_mode": "cls"}, model_type="CrossEncoder"
    )
    assert (reranker.family, reranker.pooling, reranker.max_length("pair")) == ("rerank", "cls", 99)
    for modes in ({"pooling_mode": ["mean", "max"]}, {"pooling_mode_max_tokens": True},
                  {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}):  # fmt: skip
        with pytest.raises(PipelineError, match="is not supported"):
            foreign(tmp_path, plain, modes)
    with pytest.raises(PipelineError, match="a Dense module is not supported"):
        foreign(tmp_path, [*plain, "Dense"], {"pooling_mode": "mean"})


def test_stages_that_need_one_vector_refuse_token_vectors():
    with pytest.raises(PipelineError, match=r"my-model gives a vector for every token"):
        EncodingContract(pooling="colbert").need_one_vector("my-model")
    assert EncodingContract(pooling="last").need_one_vector("my-model").pooling == "last"
