"""Every file of the stage, each written whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.records.beir import TestSet, write_beir
from pipeline.records.passages import write_corpus
from pipeline.records.training import TrainingFile
from pipeline.run.files import write_json, write_jsonl
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.questions import Converted, Question
from pipeline_prep.mining.report import full_report
from pipeline_prep.summary import Prepared


def write(folder: Path, config: PrepConfig, made: Prepared, contract: EncodingContract) -> list[Path]:
    """Write what `made` holds; returns the files and folders."""
    args = mining_args(config, contract)
    mining = {"mining": {"args": args}}
    corpus = folder / "corpus"
    not_mined = [replace(row, negatives=[], negative_scores={}, positive_scores={}) for row in made.train]
    return [
        write_corpus(corpus, made.converted.passages.values(), config.corpus_id),
        TrainingFile(corpus, not_mined).save(folder / "train.json"),
        TrainingFile(corpus, made.val, mining).save(folder / "val.json"),
        TrainingFile(corpus, made.train, mining).save(folder / "train_mined.automodel.json"),
        TrainingFile(corpus, made.unrolled).save(folder / "train_mined.automodel_unrolled.json"),
        write_beir(folder / "eval_beir", beir_test_set(made.converted, made.test)),
        contract.save(folder),
        write_json(folder / "mining_report.json", full_report(args, made.funnel, made.train_mining, made.val_mining)),
        write_jsonl(folder / "rejected.jsonl", made.funnel.rejected),
    ]


def beir_test_set(converted: Converted, questions: list[Question]) -> TestSet:
    """The whole corpus as haystack; every positive of a test question counts."""
    return TestSet(
        "test",
        converted.passages,
        queries={question.id: question.text for question in questions},
        qrels={question.id: dict.fromkeys(question.positives, 1) for question in questions},
        metadata={question.id: question.metadata for question in questions},
    )


def mining_args(config: PrepConfig, contract: EncodingContract) -> dict[str, Any]:
    """With what the negatives were mined, kept in the mined files."""
    return {
        "model_name_or_path": config.base_model,
        "revision": config.base_model_revision,
        "hard_negatives_to_mine": config.hard_negatives_to_mine,
        "hard_neg_margin": config.hard_neg_margin,
        "hard_neg_margin_type": "perc",
        "query_prefix": contract.query_prefix,
        "passage_prefix": contract.passage_prefix,
        "query_max_length": contract.query_max_length,
        "passage_max_length": contract.passage_max_length,
        "pooling": contract.pooling,
        "l2_normalize": contract.normalize,
        "dtype": contract.dtype,
        "contract": contract.digest(),
    }
