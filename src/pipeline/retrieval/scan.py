"""One block of passages against all questions: rough scores first, exact ones where they could matter."""

from __future__ import annotations

from dataclasses import dataclass
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
_GROUPS_AT_ONCE, _ROWS_AT_ONCE = 65_536, 256
_MUCH = 1 / 16
"""Share of a question's groups from which on it is cheaper to look at all of them."""
_PAIRS_AT_ONCE = 2048
"""Pairs whose exact scores are computed at once: their vectors stay in the cache."""
_VECTORS_AT_ONCE = 16_384
_ROUNDING = {torch.bfloat16: 2**-9, torch.float32: 2**-24}
"""Largest relative error of rounding to a type."""
_SAMPLE = 64, 1024
"""Questions and passages that tell how far scores spread."""
_COARSE = 0.2
"""A rough score that may be wrong by more than this share of the scores' spread tells too little."""
_DEAR = 1 / 256
"""Share of the scores that may be computed exactly; where it is more, scores rounded less are cheaper."""


def dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Dot products of rows [P, D]: fp32 [P]. A pair's result does not depend on the pairs beside it."""
    return (first.float() * second.float()).sum(1)


@dataclass(frozen=True)
class _Block:
    """Passages ready to be scanned.

    Attributes:
        vectors: [n, D] as they are kept. names: int64 [n], their numbers.
        queries: [Q, D] and tiles: [n_t, D] in the type of the rough scores. Tiles hold vectors less their mean, and
            zeros that fill up the last group.
        shift: fp32 [Q], the question's product with that mean: score = rough score + shift, within `error` (fp32 [Q]).
        excluded: (question, place), by question: pairs that must not be found.
    """

    vectors: torch.Tensor
    names: torch.Tensor
    queries: torch.Tensor
    tiles: list[torch.Tensor]
    shift: torch.Tensor
    error: torch.Tensor
    excluded: tuple[np.ndarray, np.ndarray]


class Scan:
    """Holds the questions and what was found for them.

    Args:
        queries: fp32 [Q, D].
        best, above: filled in place; they say on which device to compute.
        query_block: questions scored at once.
        rough: the type of the rough scores; where it is too coarse, fp32 is taken.
    """

    def __init__(
        self, queries: np.ndarray, limits: Limits, best: Best, above: torch.Tensor, query_block: int, rough: torch.dtype
    ) -> None:
        self.best, self.above, self.rough, self.device = best, above, rough, above.device
        if self.device.type == "cuda":  # the bound on the error counts on sums in fp32
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
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
        self.exactly = 0
        """Exact scores computed so far."""

    def block(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Passages `numbers` (int64 [n]) with their vectors [n, D]."""
        if len(self.hidden):
            kept = ~np.isin(numbers, self.hidden)
            numbers, vectors = (numbers, vectors) if kept.all() else (numbers[kept], vectors[kept])
        if not len(numbers):
            return
        block = self._prepared(numbers, vectors, self.rough)
        for first in range(0, len(self.queries), self.query_block):
            rows = slice(first, min(first + self.query_block, len(self.queries)))
            for number, passages in enumerate(block.tiles):
                tile = slice(number * self.width, (number + 1) * self.width)
                scores = block.queries[rows] @ passages.T
                self._hide(scores, block, rows, tile)
                before = self.exactly
                self._search(scores, block, rows, tile)
                # Less what the best themselves cost: in the first tiles many come in.
                extra = self.exactly - before - 2 * self.best.k * len(scores)
                if extra > _DEAR * scores.numel():
                    self.rough = torch.float32
            if block.queries.dtype != self.rough and self.rough == torch.float32:
                block = self._prepared(numbers, vectors, self.rough)

    def _prepared(self, numbers: np.ndarray, vectors: np.ndarray, rough: torch.dtype) -> _Block:
        exact = torch.from_numpy(np.require(vectors, requirements=["C", "W"])).to(self.device)  # a map is copied here
        names = torch.from_numpy(np.ascontiguousarray(numbers)).to(self.device)
        mean, longest, furthest = _extent(exact)
        shift = self.queries @ mean
        sums = exact.shape[1] * 2**-23 * (longest + float(mean.norm()))  # what sums of D products lose in fp32
        # Rounding the questions, the passages and the result, each a share of the lengths' product (Cauchy-Schwarz).
        error = self.lengths * (1.01 * (3 * _ROUNDING[rough] * furthest + sums))
        if rough != torch.float32 and self._too_coarse(exact, mean, error):
            rough = torch.float32
            error = self.lengths * (1.01 * (3 * _ROUNDING[rough] * furthest + sums))
        queries = self.queries if rough == torch.float32 else self.rough_queries
        tiles = [_rough_tile(exact[part], mean, rough) for part in _parts(len(exact), self.width)]
        return _Block(exact, names, queries, tiles, shift, error, self._excluded_in(numbers))

    def _too_coarse(self, vectors: torch.Tensor, mean: torch.Tensor, error: torch.Tensor) -> bool:
        """Whether rough scores with this error would tell too little, judged by some questions and passages."""
        some = [
            torch.linspace(0, len(item) - 1, min(count, len(item)), device=self.device).long()
            for item, count in zip((self.queries, vectors), _SAMPLE, strict=True)
        ]
        queries, error = self.queries[some[0]], error[some[0]].unsqueeze(1)
        scores = queries @ (vectors[some[1]].float() - mean).T
        ceilings = (self.ceilings[some[0]] - queries @ mean).unsqueeze(1)
        near_ceiling = ((scores - ceilings).abs() < error).float().mean()
        spread = scores.std(1, correction=0, keepdim=True)
        return bool((error > _COARSE * spread).float().mean() > 0.5 or near_ceiling > _DEAR)

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

    def _hide(self, scores: torch.Tensor, block: _Block, rows: slice, tile: slice) -> None:
        """Set to -inf what is excluded and what only fills up."""
        scores[:, max(0, len(block.vectors) - tile.start) :] = -torch.inf
        first, last = np.searchsorted(block.excluded[0], (rows.start, rows.stop))
        places = block.excluded[1][first:last]
        here = (places >= tile.start) & (places < tile.stop)
        if here.any():
            where = (block.excluded[0][first:last][here] - rows.start, places[here] - tile.start)
            scores[tuple(torch.from_numpy(item).to(self.device) for item in where)] = -torch.inf

    def _search(self, scores: torch.Tensor, block: _Block, rows: slice, tile: slice) -> None:
        """Offer to `best` what this tile holds. scores: rough, [q, n], changed in place."""
        shift, error, ceilings = block.shift[rows], block.error[rows], self.ceilings[rows]
        grouped = scores.view(len(scores), _GROUP, -1)
        peaks = grouped.amax(1)
        self._count_above(grouped, peaks, ceilings + error - shift, rows.start)
        bar = self.best.bar(rows)
        bound = torch.maximum(bar, self._first_bound(scores, peaks, bar, ceilings - error - shift) + shift - error)
        bound = bound.clamp(min=self.floor) - error - shift
        # Where the floor lies above the ceiling nothing can be found, but what lies around the ceiling is counted.
        bound = torch.minimum(bound, ceilings - error - shift)
        row, group = (peaks >= bound.unsqueeze(1)).nonzero(as_tuple=True)
        for part in _parts(len(row), _GROUPS_AT_ONCE):
            values = grouped[row[part], :, group[part]]
            hit, place = ((values >= bound[row[part]].unsqueeze(1)) & (values > -torch.inf)).nonzero(as_tuple=True)
            column = tile.start + place * grouped.shape[2] + group[part][hit]
            self._offer(block, rows.start + row[part][hit], column, rows)

    def _count_above(self, grouped: torch.Tensor, peaks: torch.Tensor, limit: torch.Tensor, first: int) -> None:
        """Count what surely lies above the ceiling and set it to -inf, in the scores and in their peaks.

        Group by group where that is little; all of a question's scores where it is much of them.
        """
        high = peaks > limit.unsqueeze(1)
        share = high.sum(1)
        much = share > _MUCH * peaks.shape[1]
        for row in much.nonzero().squeeze(1).split(_ROWS_AT_ONCE):
            self._hide_above(grouped, peaks, (row,), limit[row], first + row)
        row, group = (high & ~much.unsqueeze(1)).nonzero(as_tuple=True)
        for part in _parts(len(row), _GROUPS_AT_ONCE):
            where = (row[part], slice(None), group[part])
            self._hide_above(grouped, peaks, where, limit[row[part]], first + row[part])

    def _hide_above(
        self, grouped: torch.Tensor, peaks: torch.Tensor, where: tuple, limit: torch.Tensor, question: torch.Tensor
    ) -> None:
        """`where` picks [m, group size] or [m, group size, groups] of the scores; limit, question: [m]."""
        part = grouped[where]
        high = part > limit.view(-1, *[1] * (part.dim() - 1))
        self.above.index_add_(0, question, high.flatten(1).sum(1))
        part.masked_fill_(high, -torch.inf)
        grouped[where] = part
        peaks[where if len(where) == 1 else (where[0], where[2])] = part.amax(1)

    def _first_bound(
        self, scores: torch.Tensor, peaks: torch.Tensor, bar: torch.Tensor, surely_allowed: torch.Tensor
    ) -> torch.Tensor:
        """fp32 [q]: for questions that have empty places, a rough score that k allowed passages of this tile reach.

        Peaks are k passages as good as any; only where some of them may lie above the ceiling all scores are sorted.
        """
        bound, k = torch.full_like(bar, -torch.inf), self.best.k
        empty = bar == -torch.inf
        simple = empty & (peaks.amax(1) <= surely_allowed) & (peaks.shape[1] >= k)
        if simple.any():
            bound[simple] = peaks[simple].topk(k, dim=1, sorted=False).values.amin(1).float()
        rest = (empty & ~simple).nonzero().squeeze(1)
        if len(rest) and scores.shape[1] > k:
            allowed = scores[rest]
            allowed.masked_fill_(allowed > surely_allowed[rest].unsqueeze(1), -torch.inf)
            bound[rest] = allowed.topk(k, dim=1, sorted=False).values.amin(1).float()
        return bound

    def _offer(self, block: _Block, question: torch.Tensor, column: torch.Tensor, rows: slice) -> None:
        """Compute the exact scores of these pairs and take in what is allowed."""
        self.exactly += len(question)
        scores = torch.empty(len(question), device=self.device)
        for part in _parts(len(question), _PAIRS_AT_ONCE):
            scores[part] = dot(self.queries[question[part]], block.vectors[column[part]])
        above = scores > self.ceilings[question]
        self.above.index_add_(0, question, above.long())
        good = ~above & (scores >= self.floor) & (scores >= self.best.bar(rows)[question - rows.start])
        keys = pack(scores[good], block.names[column[good]])
        self.best.offer(rows.start, question[good] - rows.start, keys)


def _extent(vectors: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Mean (fp32 [D]) of vectors [n, D], the greatest length, and the greatest distance to the mean.

    Vectors of many models lie in a narrow cone: less their mean they are short, and so is the error of rounding them.
    """
    parts = _parts(len(vectors), _VECTORS_AT_ONCE)
    mean = torch.stack([vectors[part].float().sum(0) for part in parts]).sum(0) / len(vectors)
    longest = max(float(vectors[part].float().norm(dim=1).max()) for part in parts)
    if float(mean.norm()) < 0.1 * longest:  # no cone: spare the subtraction
        return torch.zeros_like(mean), longest, longest
    return mean, longest, max(float((vectors[part].float() - mean).norm(dim=1).max()) for part in parts)


def _rough_tile(vectors: torch.Tensor, mean: torch.Tensor, rough: torch.dtype) -> torch.Tensor:
    """Vectors less their mean, rounded; zeros fill up the last group."""
    centred = (vectors.float() - mean).to(rough) if mean.any() else vectors.to(rough)
    return torch.nn.functional.pad(centred, (0, 0, 0, -len(vectors) % _GROUP))


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
