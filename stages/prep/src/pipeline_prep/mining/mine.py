"""Hard negatives of every question: the nearest passages that pass all rules."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import Limits, pair_scores
from pipeline.schemas.mining import MiningKeys
from pipeline_prep.mining.bm25 import bm25_candidates
from pipeline_prep.mining.candidates import Candidates, take_first
from pipeline_prep.mining.pool import Compute, Pool
from pipeline_prep.mining.rescore import Rescorer, answers_found
from pipeline_prep.mining.rules import contains_answer, repeats_positive
from pipeline_prep.mining.task import Mined, MiningTask

_DRAWS = 8
"""Passages drawn for each place that is to be filled at random; some of them do not pass the rules."""


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
        self.excluded = task.known.row_numbers, task.known.values
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
            removed={name: count for name, count in self.removed.items() if count},
        )

    def _rescore(self) -> Ragged:
        """Look for right answers among the nearest passages, whatever the margin; exclude what is found."""
        rows = len(self.task)
        found = np.empty(0, np.int64), np.empty(0, np.int64)
        if self.rules.rescore != "none":
            limits = Limits(None, self.floor, self.excluded, self.task.hidden)
            near = self.compute.nearest(self.queries, self.passages, self.rules.rescore_top, limits)
            row, place = (near.indices >= 0).nonzero()
            passage = near.indices[row, place]
            answers = self._on_first(lambda: self.rescorer.probabilities(self.task, row, passage))
            right = answers_found(answers, self.rules.rescore_threshold)
            found = row[right], passage[right]
            self.removed["found to be an answer"] = len(found[0])
            self.excluded = tuple(np.concatenate(pair) for pair in zip(self.excluded, found, strict=True))
        if self.rules.rescore_action == "drop":
            found = np.empty(0, np.int64), np.empty(0, np.int64)
        return Ragged.of_counts(np.bincount(found[0], minlength=rows), found[1])

    def _on_first(self, work):
        """The result of `work`, done by one of the processes alone."""
        world = self.compute.world
        return world.share(work() if world.leads else None)

    def _dense(self) -> Candidates:
        limits = Limits(self.ceilings, self.floor, self.excluded, self.task.hidden)
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
        row, passage = self._on_first(lambda: bm25_candidates(self.task, 4 * wanted + 10))
        return self._allowed(row, passage, "bm25")

    def _allowed(self, row: np.ndarray, passage: np.ndarray, source: str) -> Candidates:
        """Candidates from elsewhere, held to the same limits and rules as those of the vectors."""
        score = pair_scores(self.queries, self.passages, row, passage)
        size = len(self.passages)
        excluded = np.isin(row * size + passage, self.excluded[0] * size + self.excluded[1])
        good = (score <= self.ceilings[row]) & (score >= self.floor) & ~excluded & ~np.isin(passage, self.task.hidden)
        found = Candidates.of(row[good], passage[good], score[good], source)
        forbidden = self._forbidden(found.row, found.passage).values()
        return found.keep(~np.logical_or.reduce([np.zeros(len(found), bool), *forbidden]))

    def _given(self) -> Candidates:
        """Negatives that the input brought, but for known answers. The margin does not judge what people chose."""
        row, passage = self.task.given.row_numbers, self.task.given.values
        size = max(len(self.passages), 1)
        good = ~np.isin(row * size + passage, self.excluded[0] * size + self.excluded[1])
        row, passage = row[good], passage[good]
        return Candidates.of(row, passage, pair_scores(self.queries, self.passages, row, passage), "file")

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
        have = np.bincount(chosen.row, minlength=len(self.task))
        short = np.flatnonzero(have < self.rules.hard_negatives_to_mine)
        if not len(short):
            return chosen
        drawn = [
            self._draws(int(row)).integers(0, len(self.passages), _DRAWS * self.rules.hard_negatives_to_mine)
            for row in short
        ]
        row = np.repeat(short, [len(item) for item in drawn])
        random = self._allowed(row, np.concatenate(drawn), "random").distinct().without(chosen).without(given)
        return take_first(chosen.then(random), self.rules.hard_negatives_to_mine)[0]
