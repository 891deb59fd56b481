"""The whole stage with the real embedded model on twelve small documents."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from pipeline_prep.main import main

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.beir import read_beir
from pipeline.records.passages import read_corpus
from pipeline.records.training import TrainingFile
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.freshness import State, status_of
from pipeline.run.stage import execute
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of

SHARES = ("train_ratio=0.5", "val_ratio=0.25", "test_ratio=0.25")
FILES = ("train.json", "val.json", "train_mined.automodel.json", "train_mined.automodel_unrolled.json")


def prepare(source: Path, run_dir: Path, *overrides: str, family: str = "embed", profile: str = "demo") -> Path:
    settings = [f"sdg_input_path={source}", f"run_dir={run_dir}", "device=cpu", "precision=fp32", *overrides]
    resolved = resolve(family, "prep", profile, settings)
    assert execute(resolved, main) is None
    return Path(resolved.config.output_dir)


@pytest.fixture(scope="module")
def source(tmp_path_factory, corpus_records, write_records):
    return write_records(tmp_path_factory.mktemp("sdg"), corpus_records)


@pytest.fixture(scope="module")
def unfiltered(source, tmp_path_factory):
    return prepare(source, tmp_path_factory.mktemp("run"), "round_trip_top_k=null", *SHARES)


@pytest.fixture(scope="module")
def filtered(source, tmp_path_factory):
    return prepare(source, tmp_path_factory.mktemp("run"), "round_trip_top_k=1", *SHARES)


def test_every_documented_file_loads(unfiltered):
    corpus = read_corpus(unfiltered / "corpus")
    assert len(corpus) == 36
    train, val, mined, unrolled = (TrainingFile.load(unfiltered / name) for name in FILES)
    test = read_beir(unfiltered / "eval_beir")
    assert test.corpus == corpus and len(test.queries) == 9
    assert next(iter(test.corpus.values())).documents
    assert len(train.rows) == len(mined.rows) == len(unrolled.rows) == 18 and len(val.rows) == 9
    assert train.corpus_path == (unfiltered / "corpus").resolve()
    assert all(not row.negatives for row in train.rows)
    assert mined.extra["mining"]["args"]["hard_negatives_to_mine"] == 5 and "mining" not in unrolled.extra
    contract = EncodingContract.load(unfiltered)
    assert (contract.query_prefix, contract.passage_max_length, contract.dimension) == ("", 256, 384)
    report = json.loads((unfiltered / "mining_report.json").read_text())
    assert report["train"]["rows"] == 18 and set(report["train"]["positive_similarity"]) >= {"p5", "p50", "p95"}
    assert [step["step"] for step in report["funnel"]] == ["read", "judged", "kept", "split", "mined"]
    assert (unfiltered / "rejected.jsonl").read_text() == ""


def test_negatives_are_finite_below_the_margin_and_leak_nothing(unfiltered):
    test = read_beir(unfiltered / "eval_beir")
    answers = {passage for relevant in test.qrels.values() for passage in relevant}
    for name in ("val.json", "train_mined.automodel.json", "train_mined.automodel_unrolled.json"):
        for row in TrainingFile.load(unfiltered / name).rows:
            assert len(row.negatives) == len(set(row.negatives)) == len(row.negative_scores)
            assert row.negatives or row.question.startswith("Wrongly filed")
            assert not {*row.negatives, *row.known_positives} & answers
            assert not set(row.negatives) & row.known_positives
            lowest = min(row.positive_scores.values())
            assert all(score <= lowest - 0.05 * abs(lowest) + 1e-5 for score in row.negative_scores.values())
    train = TrainingFile.load(unfiltered / "train.json")
    assert not {row.question for row in train.rows} & set(test.queries.values())


def test_beir_reads_the_test_set(unfiltered):
    from beir.datasets.data_loader import GenericDataLoader

    corpus, queries, qrels = GenericDataLoader(str(unfiltered / "eval_beir")).load(split="test")
    assert len(corpus) == 36 and set(queries) == set(qrels) and len(queries) == 9
    first = json.loads((unfiltered / "eval_beir/queries.jsonl").read_text().splitlines()[0])
    assert {"query_type", "quality_score", "answer", "file_name", "segment_ids"} <= set(first["metadata"])


def test_the_round_trip_filters_train_and_val_and_never_the_test_set(unfiltered, filtered):
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        assert (filtered / "eval_beir" / name).read_bytes() == (unfiltered / "eval_beir" / name).read_bytes()
    asked = read_beir(filtered / "eval_beir").queries.values()
    assert sum(text.startswith("Wrongly filed") for text in asked) == 3, "the test set keeps what would not pass"
    for name in FILES:
        before, after = (TrainingFile.load(folder / name).rows for folder in (unfiltered, filtered))
        assert any(row.question.startswith("Wrongly filed") for row in before)
        assert [row.question for row in after] == [
            row.question for row in before if not row.question.startswith("Wrongly filed")
        ]
    rejected = [json.loads(line) for line in (filtered / "rejected.jsonl").read_text().splitlines()]
    assert [item["reason"] for item in rejected] == ["not found again"] * 9


def test_the_order_of_files_and_records_moves_no_byte(source, unfiltered, tmp_path, corpus_records, write_records):
    shuffled = random.Random(5).sample(corpus_records, len(corpus_records))
    write_records(tmp_path / "sdg", shuffled[:5], "generated_batch0_0_4.json")
    (tmp_path / "sdg/generated_batch1_5_11.json").write_text("".join(json.dumps(item) + "\n" for item in shuffled[5:]))
    again = prepare(tmp_path / "sdg", tmp_path, "round_trip_top_k=null", *SHARES)
    for name in (*FILES, "eval_beir/corpus.jsonl", "eval_beir/queries.jsonl", "eval_beir/qrels/test.tsv"):
        assert (again / name).read_bytes() == (unfiltered / name).read_bytes(), name


def test_the_reranker_mines_with_an_embedding_model(source, tmp_path):
    model = ("base_model=embedded:all-MiniLM-L6-v2", "query_prefix=", "passage_prefix=")
    folder = prepare(source, tmp_path, *model, family="rerank", profile="default")
    assert folder.name == "stage1_prep"
    assert TrainingFile.load(folder / "val.json").rows == []
    assert len(read_beir(folder / "eval_beir").queries) == 6
    assert EncodingContract.load(folder).family == "embed"


def test_a_finished_stage_is_fresh_until_its_input_changes(source, tmp_path, corpus_records, write_records):
    own = write_records(tmp_path / "sdg", corpus_records)
    prepare(own, tmp_path, *SHARES)
    settings = [f"sdg_input_path={own}", f"run_dir={tmp_path}", "device=cpu", "precision=fp32", *SHARES]
    resolved = resolve("embed", "prep", "demo", settings)
    assert status_of(resolved).state is State.DONE
    write_records(own, corpus_records[1:])
    assert status_of(resolved).state is State.STALE


def test_every_text_is_encoded_once_and_no_test_question_at_all(source, tmp_path, monkeypatch):
    seen: list[str] = []
    tokenize = BiEncoder.tokenize

    def noted(self, texts, kind):
        seen.extend(texts)
        return tokenize(self, texts, kind)

    monkeypatch.setattr(BiEncoder, "tokenize", noted)
    folder = prepare(source, tmp_path, "round_trip_top_k=1", *SHARES)
    assert len(seen) == len(set(seen)) == 36 + 27
    assert not set(read_beir(folder / "eval_beir").queries.values()) & set(seen)


def test_nothing_left_names_the_reasons_and_the_key(tmp_path, corpus_records, write_records):
    low = [item | {"qa_evaluations": {"evaluations": [{"overall": {"score": 2}}] * 3}} for item in corpus_records]
    with pytest.raises(PipelineError, match="below quality_threshold 36") as error:
        prepare(write_records(tmp_path / "sdg", low), tmp_path)
    assert "lower quality_threshold (now 7)" in error.value.fix


def test_a_model_that_finetune_made_is_used_under_its_own_contract(source, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    from pipeline.assets import resolve_model

    place = resolve_model("embedded:all-MiniLM-L6-v2")
    tuned = tmp_path / "tuned"
    AutoModel.from_pretrained(place).save_pretrained(tuned)
    AutoTokenizer.from_pretrained(place).save_pretrained(tuned)
    EncodingContract(query_prefix="ask: ", query_max_length=64, passage_max_length=64, pooling="cls").save(tuned)
    folder = prepare(source, tmp_path, f"base_model={tuned}")
    assert EncodingContract.load(folder).query_prefix == "ask: "
    with pytest.raises(PipelineError, match="contradicts 'ask: '"):
        prepare(source, tmp_path, f"base_model={tuned}", "query_prefix=other: ")


@pytest.mark.parametrize("family", ["embed", "rerank"])
def test_default_yaml_names_every_key_in_order_with_its_default(family):
    import yaml

    from pipeline.home import stage_config_dir

    shipped = yaml.safe_load((stage_config_dir(family, "prep") / "default.yaml").read_text())
    assert shipped == {name: item.default for name, item in keys_of(schema_of(family, "prep")).items()}
    assert list(shipped) == list(keys_of(schema_of(family, "prep")))
