"""Hard negatives of every question: the nearest passages that pass all rules."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import Limits, pair_scores
from pipeline.schemas.mining import MiningKeys
from pipeline_prep.mining.bm25 import Bm25Candidates
from pipeline_prep.mining.candidates import Candidates, take_first
from pipeline_prep.mining.pool import Compute, Pool
from pipeline_prep.mining.rescore import Rescorer, answers_found
from pipeline_prep.mining.rules import contains_answer, repeats_positive
from pipeline_prep.mining.task import Mined, MiningTask

_ROUNDS = 8
"""How often a passage is drawn for a place that is to be filled at random; some of them do not pass the rules."""
_RESCORED_AT_ONCE, _ASKED_AT_ONCE = 2048, 1024


def mine(
    task: MiningTask,
    queries: np.ndarray,
    passages: Passages,
    rules: MiningKeys,
    *,
    seed: int,
    compute: Compute,
    rescorer: Rescorer | None = None,
) -> Mined:
    """Choose `rules.hard_negatives_to_mine` negatives for each row of `task`, or fewer: never a doubtful one.

    Args:
        queries: fp32 [rows, D], vectors of the questions. passages: vectors of the corpus.
        rescorer: needed by the first process alone, if `rules.rescore` asks for one.
    """
    return _Miner(task, queries, passages, rules, seed, compute, rescorer).mine()


def ceilings(lowest_positive: np.ndarray, margin: float | None, kind: str) -> np.ndarray:
    """Highest score a negative may have, fp32.

    `perc`: lowest positive - (1 - margin) * |lowest positive|. The margin is a share of the positive's size, so that it
    lowers the ceiling for negative similarities too. After NV-Retriever (Moreira et al. 2024,
    https://arxiv.org/abs/2407.15831, TopK-PercPos), whose plain product rises above a negative positive. `abs`: lowest
    positive - margin.
    """
    if margin is None:
        return np.full(len(lowest_positive), np.inf, np.float32)
    step = (1 - margin) * np.abs(lowest_positive) if kind == "perc" else margin
    return (lowest_positive - step).astype(np.float32)


@dataclass
class _Miner:
    task: MiningTask
    queries: np.ndarray
    passages: Passages
    rules: MiningKeys
    seed: int
    compute: Compute
    rescorer: Rescorer | None

    def mine(self) -> Mined:
        task, rules = self.task, self.rules
        self.removed = {"known positive": len(task.known.values)}
        positives = task.positives
        positive_scores = pair_scores(self.queries, self.passages, positives.row_numbers, positives.values)
        lowest = np.full(len(task), np.inf, np.float32)
        np.minimum.at(lowest, positives.row_numbers, positive_scores)
        self.ceilings = ceilings(lowest, rules.hard_neg_margin, rules.hard_neg_margin_type)
        if rules.negative_max_score is not None:
            self.ceilings = np.minimum(self.ceilings, np.float32(rules.negative_max_score))
        self.floor = -np.inf if rules.negative_min_score is None else rules.negative_min_score
        promoted = self._rescore()
        given = self._given()
        chosen = self._choose(self._dense(), self._bm25(), given)
        if rules.fill_short_rows:
            chosen = self._filled(chosen, given)
        chosen = chosen.hardest_first()
        both = given.then(chosen)
        return Mined(
            wanted=rules.hard_negatives_to_mine,
            negatives=Ragged.of_counts(np.bincount(both.row, minlength=len(task)), both.passage),
            scores=both.score,
            sources=both.source,
            positive_scores=positive_scores,
            promoted=promoted,
            promoted_scores=pair_scores(self.queries, self.passages, promoted.row_numbers, promoted.values),
            removed={name: count for name, count in self.removed.items() if count},
        )

    @property
    def _excluded(self) -> tuple[np.ndarray, np.ndarray]:
        """(row, passage) of everything known to answer, what rescoring found too."""
        return self.task.known.row_numbers, self.task.known.values

    def _is_excluded(self, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
        size = max(len(self.passages), 1)
        known = self._excluded
        return np.isin(row * size + passage, known[0] * size + known[1])

    def _rescore(self) -> Ragged:
        """Look for right answers among the nearest passages, whatever the margin; from now on they are known.

        Returns those that become positives.
        """
        rows = len(self.task)
        if self.rules.rescore == "none":
            return Ragged.of_rows([[]] * rows)
        limits = Limits(None, self.floor, self._excluded, self.task.hidden)
        near = self.compute.nearest(self.queries, self.passages, self.rules.rescore_top, limits)
        row, place = (near.indices >= 0).nonzero()
        passage = near.indices[row, place]

        def answers(part: slice) -> np.ndarray:
            told = self.rescorer.probabilities(self.task, row[part], passage[part])
            return answers_found(told, self.rules.rescore_threshold)

        right = np.concatenate([np.zeros(0, bool), *self.compute.world.on_first(len(row), answers, _RESCORED_AT_ONCE)])
        row, passage = row[right], passage[right]
        self.removed["found to be an answer"] = len(row)
        everything = (np.concatenate(pair) for pair in zip(self._excluded, (row, passage), strict=True))
        known_row, known = (np.asarray(item) for item in everything)
        order = np.lexsort((known, known_row))
        known = Ragged.of_counts(np.bincount(known_row, minlength=rows), known[order])
        self.task = replace(self.task, known=known)
        # In a document of another split: neither a negative nor, which would be a leak, a positive.
        kept = ~np.isin(passage, self.task.apart) & (self.rules.rescore_action == "promote")
        return Ragged.of_counts(np.bincount(row[kept], minlength=rows), passage[kept])

    def _dense(self) -> Candidates:
        limits = Limits(self.ceilings, self.floor, self._excluded, self.task.hidden)
        pool = Pool(self.queries, self.passages, limits, self.rules, self.compute, self._forbidden)
        found = pool.fill()
        self.removed |= pool.removed
        return found

    def _forbidden(self, row: np.ndarray, passage: np.ndarray) -> dict[str, np.ndarray]:
        """Rule -> bool [P]: the pairs that it forbids."""
        found = {}
        if self.rules.exclude_answers and any(self.task.answers):
            found["holds the answer"] = contains_answer(self.task, row, passage)
        if self.rules.near_duplicate_threshold:
            found["repeats a positive"] = repeats_positive(self.task, row, passage, self.rules.near_duplicate_threshold)
        return found

    def _bm25(self) -> Candidates:
        wanted = round(self.rules.bm25_share * self.rules.hard_negatives_to_mine)
        if not wanted:
            return Candidates.none()
        source = Bm25Candidates(self.task) if self.compute.world.leads else None
        found = self.compute.world.on_first(
            len(self.task), lambda part: source.of(range(part.start, part.stop), 4 * wanted + 10), _ASKED_AT_ONCE
        )
        empty = np.empty(0, np.int64)
        row, passage = (np.concatenate([empty, *(pair[side] for pair in found)]) for side in (0, 1))
        return self._allowed(row, passage, "bm25")

    def _allowed(self, row: np.ndarray, passage: np.ndarray, source: str) -> Candidates:
        """Candidates from elsewhere, held to the same limits and rules as those of the vectors."""
        score = pair_scores(self.queries, self.passages, row, passage)
        above = score > self.ceilings[row]
        self._note("above the margin", above)
        good = ~above & (score >= self.floor) & ~self._is_excluded(row, passage) & ~np.isin(passage, self.task.hidden)
        found = Candidates.of(row[good], passage[good], score[good], source)
        forbidden = np.zeros(len(found), bool)
        for rule, mask in self._forbidden(found.row, found.passage).items():
            self._note(rule, mask & ~forbidden)
            forbidden |= mask
        return found.keep(~forbidden)

    def _note(self, rule: str, mask: np.ndarray) -> None:
        self.removed[rule] = self.removed.get(rule, 0) + int(mask.sum())

    def _given(self) -> Candidates:
        """Negatives that the input brought, but for known answers and what answers a test question.

        The margin does not judge what people chose.
        """
        row, passage = self.task.given.row_numbers, self.task.given.values
        hidden = np.isin(passage, self.task.hidden)
        self._note("answers a test question", hidden)
        good = ~hidden & ~self._is_excluded(row, passage)
        row, passage = row[good], passage[good]
        found = Candidates.of(row, passage, pair_scores(self.queries, self.passages, row, passage), "file")
        return found.distinct()

    def _choose(self, dense: Candidates, bm25: Candidates, given: Candidates) -> Candidates:
        """The first `wanted` of each row: its share from each source, then whatever is left of either."""
        wanted = self.rules.hard_negatives_to_mine
        from_bm25 = round(self.rules.bm25_share * wanted)
        if self.rules.negative_sampling == "random":
            dense = dense.shuffled(self._draws)
        first_dense, rest_dense = take_first(dense, wanted - from_bm25)
        bm25 = bm25.without(first_dense)
        first_bm25, rest_bm25 = take_first(bm25, from_bm25)
        order = first_dense.then(first_bm25).then(rest_dense).then(rest_bm25)
        return take_first(order.distinct().without(given), wanted)[0]

    def _draws(self, row: int) -> np.random.Generator:
        """Random numbers of one question: the same whatever other questions there are."""
        return np.random.default_rng([self.seed, zlib.crc32(str(self.task.question_ids[row]).encode())])

    def _filled(self, chosen: Candidates, given: Candidates) -> Candidates:
        """Places that stayed empty get passages drawn at random from all that pass the rules."""
        wanted = self.rules.hard_negatives_to_mine
        draws = {int(row): self._draws(int(row)) for row in np.flatnonzero(self._missing(chosen))}
        for _ in range(_ROUNDS):
            missing = self._missing(chosen)
            rows = np.flatnonzero(missing)
            if not len(rows):
                break
            drawn = [draws[int(row)].integers(0, len(self.passages), missing[row]) for row in rows]
            found = self._allowed(np.repeat(rows, missing[rows]), np.concatenate(drawn), "random").distinct()
            chosen = take_first(chosen.then(found.without(chosen).without(given)), wanted)[0]
        return chosen

    def _missing(self, chosen: Candidates) -> np.ndarray:
        """int64 [rows]: empty places of each row."""
        have = np.bincount(chosen.row, minlength=len(self.task))
        return np.maximum(self.rules.hard_negatives_to_mine - have, 0)
