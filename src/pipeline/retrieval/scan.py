"""One block of passages against all questions: rough scores first, exact ones where they could matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.retrieval.ranked import Best, pack

if TYPE_CHECKING:
    from pipeline.retrieval.search import Limits

_GROUP = 64
"""Rough scores looked at together: one comparison says that none of them matters."""
_TILE = 8_388_608
"""Rough scores computed at once: what fits into a processor's cache and keeps a GPU busy."""
_GROUPS_AT_ONCE = 65_536
_PAIRS_AT_ONCE = 2048
"""Pairs whose exact scores are computed at once: their vectors stay in the cache."""
_NORMS_AT_ONCE = 16_384
_ROUNDING = {torch.bfloat16: 2**-9, torch.float16: 2**-12, torch.float32: 2**-24}
"""Largest relative error of rounding to a type."""


def dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Dot products of rows [P, D]: fp32 [P]. A pair's result does not depend on the pairs beside it."""
    return (first.float() * second.float()).sum(1)


class Scan:
    """Holds the questions and what was found for them.

    Args:
        queries: fp32 [Q, D].
        best, above: filled in place; they say on which device to compute.
        query_block: questions scored at once.
        rough: the type of the rough scores.
    """

    def __init__(
        self, queries: np.ndarray, limits: Limits, best: Best, above: torch.Tensor, query_block: int, rough: torch.dtype
    ) -> None:
        self.best, self.above, self.rough, self.device = best, above, rough, above.device
        self.queries = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(self.device)
        self.rough_queries = self.queries.to(rough)
        self.lengths = self.queries.norm(dim=1)
        count = len(queries)
        ceilings = np.full(count, np.inf, np.float32) if limits.ceilings is None else limits.ceilings
        self.ceilings = torch.from_numpy(np.ascontiguousarray(ceilings, np.float32)).to(self.device)
        self.floor = float(limits.floor)
        self.hidden = np.empty(0, np.int64) if limits.hidden is None else limits.hidden
        rows, columns = limits.excluded or (np.empty(0, np.int64), np.empty(0, np.int64))
        order = np.argsort(columns, kind="stable")
        self.excluded = np.asarray(rows, np.int64)[order], np.asarray(columns, np.int64)[order]
        self.query_block = min(query_block, count)
        self.width = max(_GROUP, _TILE // self.query_block // _GROUP * _GROUP)
        """Passages of a tile."""

    def block(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Passages `numbers` (int64 [n]) with their vectors [n, D]."""
        if len(self.hidden):
            kept = ~np.isin(numbers, self.hidden)
            numbers, vectors = (numbers, vectors) if kept.all() else (numbers[kept], vectors[kept])
        if not len(numbers):
            return
        exact = torch.from_numpy(np.require(vectors, requirements=["C", "W"])).to(self.device)  # a map is copied here
        names = torch.from_numpy(np.ascontiguousarray(numbers)).to(self.device)
        error = self._largest_error(exact)
        excluded = self._excluded_in(numbers)
        tiles = [slice(start, start + self.width) for start in range(0, len(exact), self.width)]
        rough = [self._rough_tile(exact[tile]) for tile in tiles]
        for first in range(0, len(self.queries), self.query_block):
            rows = slice(first, min(first + self.query_block, len(self.queries)))
            for tile, passages in zip(tiles, rough, strict=True):
                scores = self.rough_queries[rows] @ passages.T
                self._hide(scores, excluded, rows, tile, len(exact))
                self._search(scores, rows, exact[tile], names[tile], error[rows])

    def _largest_error(self, vectors: torch.Tensor) -> torch.Tensor:
        """fp32 [Q]: no rough score of this block is further from the exact one.

        Rounding the questions, the passages (unless they are of the rough type already) and the result, and what sums
        of D products lose in fp32, each as a share of the product of the lengths (Cauchy-Schwarz).
        """
        rounding = _ROUNDING[self.rough]
        shares = rounding * (2 if vectors.dtype == self.rough else 3) + vectors.shape[1] * 2**-23
        longest = max(float(vectors[part].float().norm(dim=1).max()) for part in _parts(len(vectors), _NORMS_AT_ONCE))
        return self.lengths * (longest * shares * 1.01)

    def _rough_tile(self, vectors: torch.Tensor) -> torch.Tensor:
        """Of the rough type; zeros fill up the last group."""
        missing = -len(vectors) % _GROUP
        return torch.nn.functional.pad(vectors.to(self.rough), (0, 0, 0, missing))

    def _excluded_in(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(question, place in the block), by question, of the excluded pairs that this block holds."""
        rows, columns = self.excluded
        if not len(rows):
            return rows, columns
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        place = np.minimum(np.searchsorted(ordered, columns), len(ordered) - 1)
        here = ordered[place] == columns
        rows, places = rows[here], order[place[here]]
        by_row = np.argsort(rows, kind="stable")
        return rows[by_row], places[by_row]

    def _hide(
        self, scores: torch.Tensor, excluded: tuple[np.ndarray, np.ndarray], rows: slice, tile: slice, count: int
    ) -> None:
        """Set to -inf what is excluded and what only fills up."""
        scores[:, max(0, count - tile.start) :] = -torch.inf
        first, last = np.searchsorted(excluded[0], (rows.start, rows.stop))
        places = excluded[1][first:last]
        here = (places >= tile.start) & (places < tile.stop)
        if here.any():
            where = (excluded[0][first:last][here] - rows.start, places[here] - tile.start)
            scores[tuple(torch.from_numpy(item).to(self.device) for item in where)] = -torch.inf

    def _search(
        self, scores: torch.Tensor, rows: slice, exact: torch.Tensor, names: torch.Tensor, error: torch.Tensor
    ) -> None:
        """Offer to `best` what this tile holds. scores: rough, [q, n]."""
        ceilings = self.ceilings[rows]
        bar = self.best.bar(rows)
        bound = torch.maximum(bar, self._first_bound(scores, bar, ceilings, error))
        # All that scores above the ceiling is counted, also where the floor lies higher still.
        bound = torch.minimum(bound.clamp(min=self.floor), ceilings) - error
        grouped = scores.view(len(scores), _GROUP, -1)
        row, group = (grouped.amax(1) >= bound.unsqueeze(1)).nonzero(as_tuple=True)
        for part in _parts(len(row), _GROUPS_AT_ONCE):
            self._offer(grouped, row[part], group[part], bound, ceilings, error, rows.start, exact, names)

    def _first_bound(
        self, scores: torch.Tensor, bar: torch.Tensor, ceilings: torch.Tensor, error: torch.Tensor
    ) -> torch.Tensor:
        """fp32 [q]: a bound for questions that have empty places yet, from the k-th best rough score of this tile.

        The exact score of the k-th among those that are surely allowed is at most one error lower: the best k scores
        reach up to there.
        """
        bound = torch.full_like(bar, -torch.inf)
        empty = (bar == -torch.inf).nonzero().squeeze(1)
        if len(empty) and scores.shape[1] > self.best.k:
            allowed = scores[empty].float()
            allowed.masked_fill_(allowed > (ceilings - error)[empty].unsqueeze(1), -torch.inf)
            bound[empty] = allowed.topk(self.best.k, dim=1, sorted=False).values.amin(1) - error[empty]
        return bound.nan_to_num(nan=-torch.inf)

    def _offer(
        self,
        grouped: torch.Tensor,
        row: torch.Tensor,
        group: torch.Tensor,
        bound: torch.Tensor,
        ceilings: torch.Tensor,
        error: torch.Tensor,
        first: int,
        exact: torch.Tensor,
        names: torch.Tensor,
    ) -> None:
        """Look into the groups `group` of the questions `row` (int64 [H] each)."""
        values = grouped[row, :, group].float()
        surely_above = values > (ceilings + error)[row].unsqueeze(1)
        self.above.index_add_(0, first + row, surely_above.sum(1))
        near = (values >= bound[row].unsqueeze(1)) & ~surely_above & (values > -torch.inf)
        hit, place = near.nonzero(as_tuple=True)
        question, column = row[hit], place * grouped.shape[2] + group[hit]
        scores = torch.empty(len(question), device=self.device)
        for part in _parts(len(question), _PAIRS_AT_ONCE):
            scores[part] = dot(self.queries[first + question[part]], exact[column[part]])
        above = scores > ceilings[question]
        self.above.index_add_(0, first + question, above.long())
        good = ~above & (scores >= self.floor) & (scores >= self.best.bar(slice(first, first + len(bound)))[question])
        self.best.offer(first, question[good], pack(scores[good], names[column[good]]))


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
