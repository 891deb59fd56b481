"""The nearest passages of many questions, exactly, in bounded memory.

All scores of a tile (some questions by some passages) are computed roughly, in bf16 where the hardware multiplies it.
Only where a rough score comes within its own largest error of what a question already has is the score computed again
in fp32. The result is exact, and the same for every tile size and number of processes; the cost is one rough matrix
product and little more. Nothing but the best of each question is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.retrieval.hardware import has_native_bf16
from pipeline.retrieval.passages import ArrayPassages, Passages
from pipeline.retrieval.ranked import NOTHING, Best, best_of, numbers_of, scores_of
from pipeline.retrieval.scan import Scan, dot
from pipeline.retrieval.world import World

Device = torch.device | str
_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Limits:
    """What may be found for a question.

    Attributes:
        ceilings: fp32 [Q], the highest score allowed; None for no ceiling.
        floor: the lowest score allowed.
        excluded: (question, passage), int64 [M] each, in any order: pairs that must not be found.
        hidden: int64 [H], ascending: passages that no question may find.
    """

    ceilings: np.ndarray | None = None
    floor: float = -np.inf
    excluded: tuple[np.ndarray, np.ndarray] | None = None
    hidden: np.ndarray | None = None


@dataclass(frozen=True)
class Nearest:
    """What was found.

    Attributes:
        scores, indices: fp32 and int64 [Q, k], best first, equal scores by the lower index; -inf and -1 where nothing
            was left.
        above: int64 [Q], passages that score above the question's ceiling and are neither excluded nor hidden.
    """

    scores: np.ndarray
    indices: np.ndarray
    above: np.ndarray


def top_k(
    queries: np.ndarray,
    passages: np.ndarray | Passages,
    k: int,
    *,
    passage_block: int = 50_000,
    query_block: int = 1024,
    device: Device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` passages with the largest dot product for each query.

    Args:
        queries: fp32 [Q, D]. passages: [N, D] (may be memory-mapped; read block by block).

    Returns:
        scores fp32 [Q, k'] and indices int64 [Q, k'], best first, k' = min(k, N). Equal scores: lower index first.
    """
    found = nearest(queries, passages, k, passage_block=passage_block, query_block=query_block, device=device)
    return found.scores, found.indices


def nearest(
    queries: np.ndarray,
    passages: np.ndarray | Passages,
    k: int,
    limits: Limits | None = None,
    *,
    passage_block: int = 50_000,
    query_block: int = 1024,
    device: Device = "cpu",
    world: World | None = None,
) -> Nearest:
    """The `k` nearest passages of each question that its limits allow.

    Args:
        queries: fp32 [Q, D].
        passages: fewer than 2**32 - 1 vectors [N, D] of any float type.
        passage_block: passages in memory at once. query_block: questions scored at once.
        world: the processes that share the work; each reads every `size`-th block, all get the whole result.
    """
    world = world or World()
    if isinstance(passages, np.ndarray):
        passages = ArrayPassages(passages)
    k = min(k, len(passages))
    best = Best(len(queries), k, device)
    above = torch.zeros(len(queries), dtype=torch.int64, device=device)
    if k and len(queries):
        scan = Scan(queries, limits or Limits(), best, above, query_block, rough_type(torch.device(device)))
        for numbers, vectors in passages.blocks(passage_block, world.rank, world.size):
            scan.block(numbers, vectors)
    keys, above = _merged(best.keys.cpu(), above.cpu(), world)
    return Nearest(scores_of(keys).numpy(), numbers_of(keys).numpy(), above.numpy())


def pair_scores(queries: np.ndarray, passages: Passages, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """fp32 [P]: the scores of single (question, passage) pairs, the same numbers that `nearest` finds."""
    scores = np.empty(len(row), np.float32)
    for start in range(0, len(row), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        taken = torch.from_numpy(passages.take(passage[part]))
        scores[part] = dot(torch.from_numpy(queries[row[part]]), taken).numpy()
    return scores


def rough_type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def _merged(keys: torch.Tensor, above: torch.Tensor, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    if world.size == 1 or not keys.numel():
        return keys, above
    every = world.gather_objects((keys, above))
    joined = torch.cat([part for part, _ in every], dim=1)
    return best_of(joined, keys.shape[1]), torch.stack([part for _, part in every]).sum(0)


__all__ = ["NOTHING", "Limits", "Nearest", "nearest", "pair_scores", "top_k"]
