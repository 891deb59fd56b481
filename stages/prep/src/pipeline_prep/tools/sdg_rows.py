"""Records of sdg as rows that `convert` can write: each distinct question once, with the passages that answer it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.sources.assemble import assemble
from pipeline.records.sources.draft import Corpus, Draft
from pipeline.records.sources.passages import passage_table
from pipeline.records.sources.rows import Rows
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.read import read_input
from pipeline_prep.merging import merge_identical

COLUMNS = ("id", "text", "title")
log = logging.getLogger("pipeline")


def read_sdg_rows(path: Path) -> tuple[Rows, Counter[str]]:
    """The rows, without negatives, over every passage; and how many questions have which other field.

    Judged pairs below prep's default `quality_threshold` are dropped, as prep does; each loss is logged.

    Raises:
        PipelineError: a record is malformed, or no question is left.
    """
    import pyarrow as pa

    funnel = Funnel()
    made = read_input(path, PrepConfig(), funnel)
    documents = {name: "train" for question in made.questions for name in question.documents}
    questions = merge_identical(made.questions, documents, funnel)["train"]
    funnel.close("merged", len(questions))
    for line in funnel.lines():
        log.info("%s", line)
    if not questions:
        raise PipelineError(f"{path}: no question is left", fix="look at the losses above")
    columns = ([getattr(item, name) for item in made.passages.values()] for name in COLUMNS)
    table = passage_table(*(pa.array(column, pa.large_string()) for column in columns))
    corpus = Corpus(path.name, str(path), table)
    draft = Draft(str(path), "row")
    for number, question in enumerate(questions):
        positives = [(key, math.nan) for key in question.positives]
        draft.add(number, question.id, question.text, positives, [])
    told = (name for item in questions for name, value in item.metadata.items() if value not in (None, "", [], {}))
    return assemble(str(path), [draft.by_id([corpus], [path])]), Counter(told)
