"""`pipeline data materialize`: a data set of the hub, or a BEIR folder, as a training file with its corpus folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.passages import CORPUS_FILE, METADATA_FILE, write_corpus_table
from pipeline.records.sources.beir import is_beir, read_beir_rows
from pipeline.records.sources.check import as_object
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.draft import Part
from pipeline.records.sources.hub import METADATA, open_repo, read_hub
from pipeline.records.sources.spec import HUB
from pipeline.run.files import replacing_folder
from pipeline_prep.tools.judgements import qrels_file
from pipeline_prep.tools.outputs import check_folder, check_output
from pipeline_prep.tools.references import references
from pipeline_prep.tools.training_json import Document

TRAINING_FILE = "train.json"
CORPUS_ENDING = "_corpus"
log = logging.getLogger("pipeline")


def command(source: str, output: str, split: str, negatives: bool, overwrite: bool) -> int:
    target = _check_folder(source, Path(output), overwrite)
    name, metadata, part = _read_hub(source, split) if source.startswith(HUB) else _read_beir(Path(source), split)
    if not len(part.question_ids):
        raise PipelineError(f"{part.name} holds no question with an answer", fix="another subset, or --split")
    rows = list(rows_of(part, str(metadata["corpus_id"]), negatives))
    with replacing_folder(target) as folder:
        corpus = f"{name}{CORPUS_ENDING}"
        write_corpus_table(folder / corpus, part.passages, metadata)
        path = folder / TRAINING_FILE
        Document(path, {"corpus": {"path": f"./{corpus}"}}, rows).save(path)
    given = sum(len(row["neg_doc"]) for row in rows)
    log.info("%s -> %s: %d questions, %d passages, %d negatives", source, output, len(rows), len(part.passages), given)
    return 0


def rows_of(part: Part, corpus_id: str, negatives: bool = True) -> Iterator[dict[str, Any]]:
    """Rows of a training file, one for each question, with the source's negatives or without."""
    wrong = part.negatives if negatives else part.negatives.keep(np.zeros(len(part.negatives.values), bool))
    columns = zip(
        part.question_ids,
        part.questions,
        references(part.positives, part.positive_scores, part.passages, ["id"]),
        references(wrong, part.negative_scores, part.passages, ["id"]),
        strict=True,
    )
    for name, question, positives, others in columns:
        yield {
            "question_id": name.as_py(),
            "question": question.as_py(),
            "corpus_id": corpus_id,
            "pos_doc": positives,
            "neg_doc": others,
        }


def _read_hub(source: str, split: str) -> tuple[str, dict[str, Any], Part]:
    """(name of the corpus folder without its ending, metadata of the corpus, rows)."""
    if split != "train":
        raise PipelineError(f"--split {split}: of {source} only the split train is read", fix="leave --split out")
    repo, subset = open_repo(source)
    described = sorted(name.removesuffix(f"/{METADATA}") for name in repo.files() if name.endswith(f"/{METADATA}"))
    if subset is None and len(described) > 1:
        raise PipelineError(
            f"{source} holds {len(described)} corpora: {', '.join(described)}", fix=f"name one: {source}/{described[0]}"
        )
    (part,) = read_hub(source, Corpora(use_instructions=False))
    name = subset or (described[0] if described else repo.name.rpartition("/")[2])
    if name not in described:
        return name, {"corpus_id": name}, part
    where = f"{HUB}{repo.name}/{name}/{METADATA}"
    return name, as_object(repo.json(f"{name}/{METADATA}"), where), part


def _read_beir(folder: Path, split: str) -> tuple[str, dict[str, Any], Part]:
    if not is_beir(folder) or not folder.is_dir():
        raise PipelineError(
            f"{folder} is no BEIR folder (corpus.jsonl, queries.jsonl, qrels/)",
            fix=f"name a BEIR folder or {HUB}org/repo/subset; for other formats use pipeline data convert",
        )
    # Read as for validation: a question with several answers stays one row.
    part = read_beir_rows(qrels_file(folder, split), "val", Corpora(use_instructions=False))
    name = folder.resolve().name
    return name, {"corpus_id": name}, part


def _check_folder(source: str, output: Path, overwrite: bool) -> Path:
    """The folder to make. Only an empty one, or with `overwrite` one that this command made, is replaced."""
    inputs = [] if source.startswith(HUB) else [Path(source)]
    resolved = check_output(output, inputs, overwrite)
    check_folder(resolved, (TRAINING_FILE, f"*{CORPUS_ENDING}/{CORPUS_FILE}", f"*{CORPUS_ENDING}/{METADATA_FILE}"))
    return resolved
