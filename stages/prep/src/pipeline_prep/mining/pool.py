"""The nearest passages of each question that pass all rules, as many as are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import Limits, Nearest, nearest
from pipeline.retrieval.world import World
from pipeline.schemas.mining import MiningKeys
from pipeline_prep.mining.approximate import ApproximateIndex
from pipeline_prep.mining.candidates import Candidates

_DEEPEST = 1024
"""No question is searched deeper: where a thousand neighbours break the rules, the question itself is at fault."""

Forbids = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""(row, passage) -> rule -> bool [P], True where the rule forbids the pair."""


@dataclass(frozen=True)
class Compute:
    """Where and how the search runs.

    With `approximate`, `index` answers instead of the exact search; the first process has it and answers for all.
    `recall` is the share of the exact neighbours that it finds.
    """

    device: torch.device | str
    query_block: int
    passage_block: int
    world: World
    approximate: bool = False
    index: ApproximateIndex | None = None
    recall: float | None = None

    def nearest(self, queries: np.ndarray, passages: Passages, k: int, limits: Limits) -> Nearest:
        return nearest(
            queries, passages, k, limits, passage_block=self.passage_block, query_block=self.query_block,
            device=self.device, world=self.world,
        )  # fmt: skip


@dataclass
class Pool:
    """Searches as deep as each question needs: most are served by the first pass, the others go on alone."""

    queries: np.ndarray
    passages: Passages
    limits: Limits
    rules: MiningKeys
    compute: Compute
    forbids: Forbids
    removed: dict[str, int] = field(default_factory=dict)

    def fill(self) -> Candidates:
        """Up to `hard_negatives_to_mine` candidates of each question, or all of the window that is drawn from."""
        deepest = min(max(_DEEPEST, 4 * self._first_depth()), len(self.passages))
        rows, depth = np.arange(len(self.queries)), min(self._first_depth(), deepest)
        done, approximate = Candidates.none(), self.compute.approximate
        while len(rows) and depth:
            found = self._approximately(rows, depth) if approximate else self._exactly(rows, depth)
            candidates, removed = self._passed(rows, found)
            count = np.bincount(candidates.row, minlength=len(rows))
            # An approximate search that comes back empty-handed says nothing: the exact one has the last word.
            full = found.indices[:, -1] >= 0
            ended = self._reaches_last_rank(found) & full if approximate else self._reaches_last_rank(found) | ~full
            served = ended | (count >= self._needed())
            if depth == deepest and not approximate:
                served[:] = True
            self._note(removed, served, found)
            kept = candidates.keep(served[candidates.row])
            done = done.then(Candidates(rows[kept.row], kept.passage, kept.score, kept.source))
            rows, depth = rows[~served], depth if approximate else min(4 * depth, deepest)
            approximate = False
        return done

    def _needed(self) -> int:
        if self.rules.negative_sampling == "random":
            return len(self.passages)  # the whole window
        return self.rules.hard_negatives_to_mine

    def _first_depth(self) -> int:
        """Enough for nearly all questions: the rules on texts forbid few."""
        skipped = self.rules.negative_rank_min - 1
        if self.rules.negative_sampling == "random":
            return self.rules.negative_rank_max or 1
        wanted = self.rules.hard_negatives_to_mine
        depth = skipped + wanted + max(5, wanted // 2)
        return min(depth, self.rules.negative_rank_max or depth)

    def _limits_of(self, rows: np.ndarray) -> Limits:
        if len(rows) == len(self.queries):
            return self.limits
        number = np.full(len(self.queries), -1)
        number[rows] = np.arange(len(rows))
        row, passage = self.limits.excluded or (np.empty(0, np.int64),) * 2
        here = number[row] >= 0
        return Limits(
            self.limits.ceilings[rows], self.limits.floor, (number[row[here]], passage[here]), self.limits.hidden
        )

    def _exactly(self, rows: np.ndarray, depth: int) -> Nearest:
        return self.compute.nearest(self.queries[rows], self.passages, depth, self._limits_of(rows))

    def _approximately(self, rows: np.ndarray, depth: int) -> Nearest:
        limits, compute = self._limits_of(rows), self.compute
        found = compute.index.nearest(self.queries[rows], self.passages, depth, limits) if compute.index else None
        return compute.world.share(found)

    def _ranks(self, found: Nearest) -> np.ndarray:
        """int64 [rows, depth]: 1 for the nearest passage that is no known positive, above the ceiling or not."""
        return found.above[:, None] + np.arange(1, found.indices.shape[1] + 1)

    def _reaches_last_rank(self, found: Nearest) -> np.ndarray:
        last = self.rules.negative_rank_max
        return np.zeros(len(found.above), bool) if last is None else self._ranks(found)[:, -1] >= last

    def _passed(self, rows: np.ndarray, found: Nearest) -> tuple[Candidates, dict[str, np.ndarray]]:
        """Candidates by place in `rows`, and how many pairs each rule took from each row."""
        ranks = self._ranks(found)
        in_window = (ranks >= self.rules.negative_rank_min) & (ranks <= (self.rules.negative_rank_max or np.inf))
        there = found.indices >= 0
        removed = {"outside the ranks": (there & ~in_window).sum(1)}
        row, place = (there & in_window).nonzero()
        candidates = Candidates.of(row, found.indices[row, place], found.scores[row, place], "vectors")
        good = np.ones(len(row), bool)
        for name, mask in self.forbids(rows[row], candidates.passage).items():
            removed[name] = np.bincount(row[good & mask], minlength=len(rows))
            good &= ~mask
        return candidates.keep(good), removed

    def _note(self, removed: dict[str, np.ndarray], served: np.ndarray, found: Nearest) -> None:
        for name, counts in {"above the margin": found.above, **removed}.items():
            self.removed[name] = self.removed.get(name, 0) + int(counts[served].sum())
