"""A second look at the nearest passages: a reranker or an LLM says which of them answer the question after all.

Hard negatives taken by similarity alone are often right answers that nobody labelled; a reranker finds most of them.
After Qu et al. 2021, "RocketQA", https://arxiv.org/abs/2010.08191 (denoised hard negatives).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.hardware import encode_batch_tokens, pick_dtype
from pipeline.retrieval.transformer import LoadOptions
from pipeline.run.progress import progress
from pipeline_prep.mining.task import MiningTask

_PAIRS_AT_ONCE = 8192


class Rescorer(Protocol):
    """Says of pairs how likely the passage answers the question."""

    def probabilities(self, task: MiningTask, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
        """fp32 [P] for `row` and `passage`, int64 [P]; NaN where there is no verdict."""

    def close(self) -> None:
        """Let go of the model or the connection."""


class CrossEncoderRescorer:
    """A reranker under its own contract; the probability is the sigmoid of its score.

    `batch_tokens` is the budget of one batch, padding included.
    """

    def __init__(self, model: CrossEncoder, batch_tokens: int = 16384) -> None:
        self.model, self.batch_tokens = model, batch_tokens

    def probabilities(self, task: MiningTask, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
        """fp32 [P].

        Raises:
            PipelineError: a score is not finite.
        """
        scores = np.empty(len(row), np.float32)
        with progress("rescoring", len(row), "pairs") as bar:
            for start in range(0, len(row), _PAIRS_AT_ONCE):
                part = slice(start, start + _PAIRS_AT_ONCE)
                queries, passages = self._texts(task, row[part], passage[part])
                scores[part] = self.model.score(queries, passages, batch_tokens=self.batch_tokens, on_batch=bar.advance)
        broken = np.flatnonzero(~np.isfinite(scores))
        if len(broken):
            raise PipelineError(
                f"rescore_model gives no finite score for {len(broken):,} pairs, the first for the question "
                f"{task.questions[int(row[broken[0]])][:80]!r}",
                fix="set precision=fp32, or take another reranker",
            )
        with np.errstate(over="ignore"):  # a score far below zero: 1 / inf = 0
            return (1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32)

    def close(self) -> None:
        del self.model

    def _texts(self, task: MiningTask, row: np.ndarray, passage: np.ndarray) -> tuple[list[str], list[str]]:
        put = self.model.contract.format_passage
        queries = [task.questions[number] for number in row.tolist()]
        return queries, [put(task.text(number), task.title(number)) for number in passage.tolist()]


def make_rescorer(config: Any, folder: Path, device: torch.device | str = "cpu") -> Rescorer | None:
    """What the keys `rescore…` of `MiningKeys` ask for; None for `rescore=none`. `folder` keeps an LLM's replies.

    Raises:
        PipelineError: the model cannot be loaded or is no reranker; texts would leave the machine; no key.
    """
    if config.rescore == "none":
        return None
    if config.rescore == "cross_encoder":
        budget = encode_batch_tokens(config.encode_batch_tokens, torch.device(device))
        return CrossEncoderRescorer(_load(config, torch.device(device)), budget)
    from pipeline_prep.mining.judge import LlmRescorer  # the client takes a second to import

    return LlmRescorer(
        config.rescore_model,
        config.rescore_base_url,
        folder,
        key_env=config.rescore_api_key_env,
        allow_remote=config.allow_remote == "yes",
    )


def answers_found(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which pairs count as answers: bool [P]. A pair without a verdict (NaN) does not."""
    return probabilities >= threshold


def _load(config: Any, device: torch.device) -> CrossEncoder:
    """The reranker under the contract it carries. Code that ships with a model is never run here."""
    reference = config.rescore_model
    place = Path(resolve_model(reference)).expanduser()
    own = contract_of_model(place) if place.is_dir() else None
    if own and own.family != "rerank":
        raise PipelineError(
            f"rescore_model={reference} is an embedding model", fix="give a reranker, or set rescore=none"
        )
    options = LoadOptions(attn_implementation=config.attn_implementation)
    contract = own or EncodingContract("rerank", reference)
    dtype = pick_dtype(config.precision, device)
    return CrossEncoder.load(reference, contract, device=device, dtype=dtype, options=options)
