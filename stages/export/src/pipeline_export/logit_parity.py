"""Logits of torch against those of the export: how far they lie apart, and whether they rank alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.onnx_scorer import OnnxScorer
from pipeline_export.pairs import ParityPair
from pipeline_export.parity import Measured, Parity, Reference, differences, shared_fields

_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, kw_only=True)
class LogitParity(Parity):
    """How close an exported cross-encoder came to torch."""

    unit = "pairs"
    gives = "logits"

    max_logit_diff: float
    """The largest difference that passes, in spreads."""
    limit_key: str = "parity_max_logit_diff"
    logit_diff: float
    """The largest difference found over all pairs and batch sizes, in spreads: `max_abs_diff` / `spread`."""
    spread: float
    """Standard deviation of torch's logits over the pairs, at least a thousandth of the largest."""
    order_agreement: float
    """Share of two passages of one query that both sides put in the same order; of the worst batch size."""
    top1_agreement: float
    """Share of queries whose first passage is the same; of the worst batch size."""

    @property
    def close(self) -> bool:
        return self.logit_diff <= self.max_logit_diff

    def gap(self) -> str:
        return (
            f"largest difference {self.logit_diff:.2g} of the logits' spread {self.spread:.3g} > "
            f"{self.limit_key}={self.max_logit_diff}"
        )

    def shown(self) -> str:
        largest = f"largest difference {self.logit_diff:.1e} of the logits' spread (may be {self.max_logit_diff})"
        return f"{largest}, same order {self.order_agreement:.1%}, same first {self.top1_agreement:.1%}"

    def listed(self) -> dict[str, float]:
        return {"logit_diff": self.logit_diff, "order_agreement": self.order_agreement, "pairs": self.compared}


def reference_of(model: CrossEncoder, pairs: Sequence[ParityPair]) -> Reference:
    tokens = []
    for pair in pairs:
        (ids,), (second,) = model.tokenize([pair.query], [pair.passage])
        tokens.append((ids, second))

    def logits(some: list[tuple[list[int], int]]) -> np.ndarray:
        return model.score_tokens(([ids for ids, _ in some], [second for _, second in some]), batch_tokens=1)

    return Reference.of(tokens, logits)


def compare(
    reference: Reference,
    exported: OnnxScorer,
    pairs: Sequence[ParityPair],
    dtype: str,
    max_logit_diff: float,
    limit_key: str = "parity_max_logit_diff",
) -> LogitParity:
    """Run the export over all pairs, alone and in padded batches, and compare with torch.

    `limit_key`: the key that sets the limit.
    """
    tokens = [exported.tokenize([(pair.query, pair.passage)])[0] for pair in pairs]
    measured = Measured.of(reference, tokens, exported.forward)
    largest = np.max([differences(reference.outputs, logits) for logits in measured.outputs], axis=0)
    index = int(largest.argmax())
    lengths = [len(ids) for ids, _ in reference.tokens]
    spread = _spread(reference.outputs)
    groups = _by_query(pairs)
    return LogitParity(
        **shared_fields(reference, [(list(item), item.second) for item in tokens], measured, lengths, dtype),
        worst=f"a pair of {lengths[index]} tokens",
        max_logit_diff=max_logit_diff,
        limit_key=limit_key,
        logit_diff=float(largest[index]) / spread,
        spread=spread,
        order_agreement=min(_same_order(reference.outputs, logits, groups) for logits in measured.outputs),
        top1_agreement=min(_same_first(reference.outputs, logits, groups) for logits in measured.outputs),
    )


def _spread(logits: np.ndarray) -> float:
    """A model whose scores have become all but equal has no spread to measure by: then its size counts."""
    return max(float(logits.std()), _LEAST_SPREAD * float(np.abs(logits).max()), float(np.finfo(np.float32).tiny))


def _by_query(pairs: Sequence[ParityPair]) -> list[list[int]]:
    """Numbers of each query's pairs."""
    groups: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault(pair.query, []).append(number)
    return list(groups.values())


def _same_order(reference: np.ndarray, logits: np.ndarray, groups: list[list[int]]) -> float:
    """Of the pairs of passages that torch tells apart; 1 where there is none."""
    found = [
        (reference[a] > reference[b]) == (logits[a] > logits[b]) and logits[a] != logits[b]
        for group in groups
        for a, b in combinations(group, 2)
        if reference[a] != reference[b]
    ]
    return float(np.mean(found)) if found else 1.0


def _same_first(reference: np.ndarray, logits: np.ndarray, groups: list[list[int]]) -> float:
    return float(np.mean([reference[group].argmax() == logits[group].argmax() for group in groups]))
