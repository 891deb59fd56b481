"""Every text through the base model exactly once: the round trip and the mining share these vectors."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.records.training import TrainingRow
from pipeline.retrieval.batching import padding_share, token_batches
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.progress import progress


@dataclass(frozen=True)
class Vectors:
    """fp32 vectors [N, D] of passages and questions, and the row of each id."""

    passages: np.ndarray
    questions: np.ndarray
    passage_row: dict[str, int]
    question_row: dict[str, int]

    def of(self, rows: Iterable[TrainingRow]) -> np.ndarray:
        """The questions' vectors in the order of `rows`."""
        return self.questions[[self.question_row[row.question_id] for row in rows]]

    def pairs(self, rows: Iterable[TrainingRow], known: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(row, passage) indices, int64 [P] each, of the rows' positives; `known` adds those that were cut off."""
        found = [
            (number, self.passage_row[key])
            for number, row in enumerate(rows)
            for key in (sorted(row.known_positives) if known else row.positives)
        ]
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def encode_once(
    encoder: BiEncoder, passages: list[Passage], rows: list[TrainingRow], batch_tokens: int, log: logging.Logger
) -> Vectors:
    """Encode the whole corpus and the questions of `rows` under the encoder's contract.

    Raises:
        PipelineError: the model gives a vector that is not finite.
    """
    contract = encoder.contract
    texts = [contract.format_passage(passage.text, passage.title) for passage in passages]
    queries = [contract.format_query(row.question) for row in rows]
    return Vectors(
        _encode(encoder, texts, "passage", batch_tokens, log),
        _encode(encoder, queries, "query", batch_tokens, log),
        {passage.id: number for number, passage in enumerate(passages)},
        {row.question_id: number for number, row in enumerate(rows)},
    )


def _encode(encoder: BiEncoder, texts: list[str], kind: str, batch_tokens: int, log: logging.Logger) -> np.ndarray:
    begun = time.monotonic()
    tokens = encoder.tokenize(texts, kind)
    lengths = [len(item) for item in tokens]
    padding = padding_share(lengths, token_batches(lengths, batch_tokens))
    cut = sum(length >= encoder.contract.max_length(kind) for length in lengths)
    with progress(f"encoding ({kind})", len(texts), "texts") as bar:
        vectors = encoder.encode_tokens(tokens, kind, batch_tokens=batch_tokens, on_batch=bar.advance)
    seconds = max(time.monotonic() - begun, 1e-9)
    log.info(
        f"encoded {len(texts):,} {kind} texts, {sum(lengths):,} tokens, {len(texts) / seconds:,.0f} texts/s, "
        f"padding {padding:.1%}, at the length limit {cut:,}"
    )
    broken = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(broken):
        raise PipelineError(
            f"the base model gives no finite vector for {len(broken)} {kind} texts, first: {texts[broken[0]][:80]!r}",
            fix="set precision=fp32, or look at that text",
        )
    return vectors
