"""The texts that tell a quantised model how large its numbers become: the training questions and their passages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, read_corpus
from pipeline.records.training import TrainingFile
from pipeline.run.stage import StageRun
from pipeline.schemas.export import ExportConfig
from pipeline_export.texts import built_in, passages_of

Example = tuple[str | None, str]
"""A question, if there is one, and a passage formatted by the contract."""


@dataclass(frozen=True)
class Examples:
    """Where the examples come from, and the examples."""

    origin: str
    items: list[Example]


def examples_of(config: ExportConfig, run: StageRun, contract: EncodingContract, corpus: Path | None) -> Examples:
    """`calibration_samples` examples drawn with `seed`: training pairs, else passages of `corpus`, else built-in texts.

    Test questions are never among them: a model is not fitted to what it is judged by.

    Raises:
        PipelineError: a file is malformed, or calibration_data_path was set and does not exist.
    """
    training = Path(config.calibration_data_path).expanduser() if config.calibration_data_path else None
    if training and training.is_file():
        return Examples(str(training), _training_pairs(training, contract, config))
    if training and "calibration_data_path" in run.explicit:
        raise PipelineError(f"calibration_data_path: {training} does not exist", fix="give a training file, or null")
    passages = passages_of(corpus) if corpus else built_in()[1]
    origin = str(corpus / "corpus.jsonl") if corpus else "built-in"
    drawn = random.Random(config.seed).sample(passages, min(config.calibration_samples, len(passages)))
    run.log.info(f"export: calibration on {len(drawn)} passages ({origin}); there is no training file")
    return Examples(origin, [(None, contract.format_passage(text)) for text in drawn])


def _training_pairs(path: Path, contract: EncodingContract, config: ExportConfig) -> list[Example]:
    """Rows in random order; of each row one passage that answers its question and one that does not."""
    file = TrainingFile.load(path)
    corpus = read_corpus(file.corpus_path)
    rows = random.Random(config.seed).sample(file.rows, len(file.rows))

    def pairs() -> Iterator[tuple[str, Passage]]:
        for row in rows:
            for key in (*row.positives[:1], *row.negatives[:1]):
                if key not in corpus:
                    raise PipelineError(f"{path}: {row.question_id} names passage {key}, which its corpus lacks")
                yield row.question, corpus[key]

    chosen = islice(pairs(), config.calibration_samples)
    found: list[Example] = [(question, contract.format_passage(item.text, item.title)) for question, item in chosen]
    if not found:
        raise PipelineError(f"{path} has no rows to calibrate with", fix="set calibration_data_path=null")
    return found
