"""What a person is told after prep: the funnel, warnings, the headline."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from pipeline_prep.mining.report import mining_section
from pipeline_prep.prepared import Prepared, Side
from pipeline_prep.questions import Converted

FEW_TEST_QUESTIONS = 50
FEW_TRAINING_ROWS = 100
BOILERPLATE_SHARE = 0.1


def counts(made: Prepared) -> dict[str, Any]:
    return {
        "training_rows": len(made.unrolled),
        "train_questions": len(made.train.rows),
        "val_questions": len(made.val.rows),
        "test_questions": made.test_size,
        "passages": len(made.converted.passages),
        "rejected": dict(Counter(item["reason"] for item in made.funnel.rejected)),
        "funnel": made.funnel.to_json(),
        "split": made.splits.counts,
    }


def mining_metrics(made: Prepared) -> dict[str, Any]:
    return mining_section(made.train.task, made.train.mined)


def headline(made: Prepared) -> list[tuple[str, str]]:
    section = mining_metrics(made)
    positive, negative = (section[f"{kind}_similarity"].get("p50", "-") for kind in ("positive", "negative"))
    short = section["rows_short_of_negatives"]
    return [
        ("questions", made.funnel.headline),
        ("train / val / test", f"{len(made.train.rows):,} / {len(made.val.rows):,} / {made.test_size:,} questions"),
        ("passages", f"{len(made.converted.passages):,}"),
        ("training rows", f"{len(made.unrolled):,}, one positive each"),
        ("hard negatives", f"{section['negatives']:,} for {section['rows']:,} questions; {short:,} short of negatives"),
        ("median similarity", f"positive {positive}, hard negative {negative}"),
        ("to read", "mining_examples.md, mining_similarity.png, rejected.jsonl"),
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


def tell(log: logging.Logger, made: Prepared, max_pos_docs: int) -> None:
    """Log the funnel, and warn of what will make the next stages weak."""
    for line in made.funnel.lines():
        log.info(line)
    cut = sum(len(row.known_positives) > len(row.positives) for row in made.train.rows + made.val.rows)
    if cut:
        log.info(f"{cut:,} questions have more than max_pos_docs={max_pos_docs} positives: the rest is cut")
    if not made.test_size:
        log.warning("there is no test set: eval needs eval_data_path=BEIR_FOLDER, or set frozen_eval here")
    elif made.test_size < FEW_TEST_QUESTIONS:
        log.warning(
            f"only {made.test_size} test questions (< {FEW_TEST_QUESTIONS}): a small difference cannot be told from "
            "chance; add documents, raise num_pairs in sdg, or raise test_ratio"
        )
    if len(made.unrolled) < FEW_TRAINING_ROWS:
        log.warning(
            f"only {len(made.unrolled)} training rows (< {FEW_TRAINING_ROWS}): add documents, or raise num_pairs in sdg"
        )
    _tell_short(log, made.train)


def _tell_short(log: logging.Logger, train: Side) -> None:
    short, none = int(train.mined.short.sum()), int((train.mined.negatives.counts == 0).sum())
    if short:
        log.warning(
            f"{short:,} of {len(train.rows):,} training questions have fewer than {train.mined.wanted} hard negatives, "
            f"{none:,} have none: no other passage passes the rules; raise hard_neg_margin, mine fewer, "
            "or set fill_short_rows=true"
        )
