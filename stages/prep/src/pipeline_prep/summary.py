"""What a person is told after prep: the funnel, warnings, the headline."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipeline.records.training import TrainingRow
from pipeline_prep.questions import Converted, Question
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.mine import MiningReport
from pipeline_prep.mining.report import mining_section

FEW_TEST_QUESTIONS = 50
FEW_TRAINING_ROWS = 100
BOILERPLATE_SHARE = 0.1


@dataclass(frozen=True)
class Prepared:
    """Everything prep made."""

    funnel: Funnel
    converted: Converted
    test: list[Question]
    train: list[TrainingRow]
    val: list[TrainingRow]
    unrolled: list[TrainingRow]
    train_mining: MiningReport
    val_mining: MiningReport


def counts(made: Prepared) -> dict[str, Any]:
    return {
        "training_rows": len(made.unrolled),
        "train_questions": len(made.train),
        "val_questions": len(made.val),
        "test_questions": len(made.test),
        "passages": len(made.converted.passages),
        "rejected": dict(Counter(item["reason"] for item in made.funnel.rejected)),
        "funnel": made.funnel.to_json(),
    }


def headline(made: Prepared) -> list[tuple[str, str]]:
    section, mined = mining_section(made.train_mining), made.train_mining
    positive, negative = section["positive_similarity"]["p50"], section["negative_similarity"].get("p50", "-")
    return [
        ("questions", made.funnel.headline),
        ("train / val / test", f"{len(made.train):,} / {len(made.val):,} / {len(made.test):,} questions"),
        ("passages", f"{len(made.converted.passages):,}"),
        ("training rows", f"{len(made.unrolled):,}, one positive each"),
        ("hard negatives", f"{mined.negatives:,} for {mined.rows:,} questions; {mined.short:,} short of negatives"),
        ("median similarity", f"positive {positive}, hard negative {negative}"),
    ]


def warn_of_boilerplate(log: logging.Logger, converted: Converted) -> None:
    """A passage that many documents repeat ties them to one side of the split; say which, before the split is made."""
    documents = {name for passage in converted.passages.values() for name in passage.documents}
    shared = max(converted.passages.values(), key=lambda passage: len(passage.documents))
    count = len(shared.documents)
    if count > max(2, BOILERPLATE_SHARE * len(documents)):
        log.warning(
            f"{count:,} of {len(documents):,} documents hold the same passage and must stay on one side of the split: "
            f"{shared.text[:80]!r}; take such boilerplate out of the documents"
        )


def tell(log: logging.Logger, made: Prepared, max_pos_docs: int, negatives_wanted: int) -> None:
    """Log the funnel, and warn of what will make the next stages weak."""
    for step in made.funnel.steps:
        log.info(str(step))
    cut = sum(len(row.known_positives) > len(row.positives) for row in made.train + made.val)
    if cut:
        log.info(f"{cut:,} questions have more than max_pos_docs={max_pos_docs} positives: the rest is cut")
    if len(made.test) < FEW_TEST_QUESTIONS:
        log.warning(
            f"only {len(made.test)} test questions (< {FEW_TEST_QUESTIONS}): a small difference cannot be told from "
            "chance; add documents, raise num_pairs in sdg, or raise test_ratio"
        )
    if len(made.unrolled) < FEW_TRAINING_ROWS:
        log.warning(
            f"only {len(made.unrolled)} training rows (< {FEW_TRAINING_ROWS}): add documents, or raise num_pairs in sdg"
        )
    mined = made.train_mining
    if mined.short:
        log.warning(
            f"{mined.short:,} of {mined.rows:,} training questions have fewer than {negatives_wanted} hard negatives, "
            f"{mined.none:,} have none: no other passage scores below the margin; raise hard_neg_margin, or mine fewer"
        )
