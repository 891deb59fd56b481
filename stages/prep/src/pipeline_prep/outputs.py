"""Every file of the stage, each written whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.records.beir import TestSet, write_beir
from pipeline.records.passages import write_corpus
from pipeline.records.training import TrainingFile
from pipeline.run.files import write_json, write_jsonl, write_text
from pipeline.schemas.fields import keys_of
from pipeline.schemas.mining import MiningKeys
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.mining.pictures import similarity_histogram
from pipeline_prep.mining.report import examples, examples_page, full_report, mining_section
from pipeline_prep.prepared import Prepared
from pipeline_prep.questions import Converted, Question


def write(folder: Path, config: PrepConfig, made: Prepared) -> list[Path]:
    """Write what `made` holds; returns the files and folders."""
    args = mining_args(config, made.contract)
    mining = {"mining": {"args": args}}
    corpus = folder / "corpus"
    not_mined = [replace(row, negatives=[], negative_scores={}, positive_scores={}) for row in made.train.rows]
    return [
        write_corpus(corpus, made.converted.passages.values(), config.corpus_id),
        TrainingFile(corpus, not_mined).save(folder / "train.json"),
        TrainingFile(corpus, made.val.rows, mining).save(folder / "val.json"),
        TrainingFile(corpus, made.train.rows, mining).save(folder / "train_mined.automodel.json"),
        TrainingFile(corpus, made.unrolled).save(folder / "train_mined.automodel_unrolled.json"),
        *_test_set(folder / "eval_beir", made),
        made.contract.save(folder),
        *_reports(folder, args, made, config.seed),
        write_jsonl(folder / "rejected.jsonl", made.funnel.rejected),
    ]


def _test_set(folder: Path, made: Prepared) -> list[Path]:
    """The test questions; without any, a folder of an earlier run must not stay behind and be taken for ours."""
    if made.splits.frozen:
        return [write_beir(folder, made.splits.frozen)]
    if made.splits["test"]:
        return [write_beir(folder, beir_test_set(made.converted, made.splits["test"]))]
    shutil.rmtree(folder, ignore_errors=True)
    return []


def _reports(folder: Path, args: dict[str, Any], made: Prepared, seed: int) -> list[Path]:
    train, val = (mining_section(side.task, side.mined) for side in (made.train, made.val))
    report = full_report(args, made.funnel, train, val)
    report |= {"split": made.splits.counts, "ann_recall": made.ann_recall}
    read = examples(made.train.task, made.train.mined, seed=seed)
    report["examples"] = read
    scores = made.train.mined.positive_scores, made.train.mined.scores
    return [
        write_json(folder / "mining_report.json", report),
        write_text(folder / "mining_examples.md", examples_page(read)),
        similarity_histogram(folder / "mining_similarity.png", *scores, "Similarity to the training questions"),
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
        **contract.describe(),
        **rule_args(config),
    }


def rule_args(rules: PrepConfig) -> dict[str, Any]:
    """Which passages could become negatives."""
    keys = keys_of(MiningKeys)
    chosen = {name: getattr(rules, name) for name, item in keys.items() if item.spec.affects_output}
    return {**chosen, "ann_above": rules.ann_above}
