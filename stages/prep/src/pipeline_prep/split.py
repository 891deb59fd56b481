"""Split by document, so that no document, no passage text and no question stands on two sides, nor nearly."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.assign import SPLITS, Ratios, assign
from pipeline_prep.document_groups import NearTies, Tie, document_groups, near_duplicate_ties
from pipeline_prep.frozen import protected_by_frozen, read_frozen
from pipeline_prep.funnel import Funnel
from pipeline_prep.groups import ties_of_groups
from pipeline_prep.leaks import (
    Barred,
    Protected,
    barred_by,
    protected_by,
    without_answers_of,
    without_repeats,
    without_test_content,
)
from pipeline_prep.merging import merge_identical
from pipeline_prep.questions import Converted, Question


@dataclass(frozen=True)
class Splits:
    """The questions of each side.

    Attributes:
        questions: split -> questions; no test questions with `frozen`.
        hidden: ids of passages that answer a test question, or nearly repeat one that does: nobody's negatives.
        apart: ids of our passages that stand in documents of test or val, or repeat what stands in those of test: no
            training question may get one of them as a further positive. Holds `hidden`.
        counts: documents of each split, groups, what was joined and removed; for the report.
        frozen: the earlier test set, where one is used again.
    """

    questions: dict[str, list[Question]]
    hidden: frozenset[str]
    counts: dict[str, Any] = field(default_factory=dict)
    frozen: TestSet | None = None
    apart: frozenset[str] = frozenset()

    def __getitem__(self, split: str) -> list[Question]:
        return self.questions[split]


def split_questions(converted: Converted, config: PrepConfig, funnel: Funnel, log: logging.Logger) -> Splits:
    """The questions of each split; identical ones are merged. The order of the input changes nothing.

    Splits that the input names itself are kept; where it names some alone, the others are cut out of its training
    questions. With `frozen_eval` the test share goes to training.

    Raises:
        PipelineError: a requested split would get no question (says how many documents are needed), or a file of
            `groups_json` or `frozen_eval` is malformed.
    """
    return _Splitting(converted, config, funnel, log).run()


class _Splitting:
    def __init__(self, converted: Converted, config: PrepConfig, funnel: Funnel, log: logging.Logger) -> None:
        self.converted, self.config, self.funnel, self.log = converted, config, funnel, log
        self.before = len(funnel.rejected)
        self.alike, self.same_question = config.near_duplicate_threshold, config.near_duplicate_questions
        self.frozen = read_frozen(config.frozen_eval) if config.frozen_eval else None

    def run(self) -> Splits:
        ordered = sorted(self.converted.questions, key=_order)
        given = self._given(ordered)
        pool, val, test = (given[name] for name in SPLITS)
        documents = {name for question in ordered for name in question.documents}
        protected = self._protected(test)
        known = self._known_groups(documents, protected)
        ratios = self._ratios(given)
        near = NearTies()
        if self.alike is not None and sum(map(bool, ratios.values())) > 1:
            near = near_duplicate_ties(list(self.converted.passages.values()), documents, self.alike)

        if protected:
            barred = barred_by(protected, self.converted, documents, known, self.alike)
            pool, val = (self._clean(items, protected, barred) for items in (pool, val))
        split_of, groups = self._cut(pool, [*self.converted.ties, *known, *near.ties], ratios)
        splits = merge_identical(pool, split_of, self.funnel)
        if given["val"]:
            splits["val"] = val
        if test:
            splits["test"] = test
        if not protected:
            protected = protected_by(self.converted, splits["test"])
            barred = barred_by(protected, self.converted, documents, known, self.alike)
            for name in ("train", "val"):
                splits[name] = self._clean(splits[name], protected, barred)
        splits["train"] = self._apart_from_val(splits["train"], splits["val"])
        self._need_all(splits, [name for name in SPLITS if ratios[name] > 0 or given[name]], len(groups))
        apart = barred.passages | self._passages_of(splits["val"])
        return Splits(splits, barred.answers, self._close(splits, groups, near), self.frozen, apart)

    def _given(self, questions: Iterable[Question]) -> dict[str, list[Question]]:
        """Split -> the questions whose input says that they belong there; identical ones are merged."""
        given: dict[str, list[Question]] = {name: [] for name in SPLITS}
        for question in questions:
            side = self.converted.given.get(question.id, "train")
            if side == "test" and self.frozen:
                self.funnel.reject("frozen_eval replaces the test set", question.where, question.text)
            else:
                given[side].append(question)
        for name in ("val", "test"):
            everywhere = {document: name for question in given[name] for document in question.documents}
            given[name] = merge_identical(given[name], everywhere, self.funnel)[name]
        return given

    def _known_groups(self, documents: set[str], protected: Protected | None) -> list[Tie]:
        if self.config.split_strategy == "random" or not self.config.groups_json:
            return []
        tested = protected.documents if protected else ()
        return ties_of_groups(self.config.groups_json, self.config.split_strategy, documents, tested)

    def _protected(self, test: list[Question]) -> Protected | None:
        """The test set, if it is known before anything is cut."""
        if self.frozen:
            return protected_by_frozen(self.frozen)
        return protected_by(self.converted, test) if test else None

    def _clean(self, questions: Sequence[Question], protected: Protected, barred: Barred) -> list[Question]:
        kept = without_test_content(questions, barred, self.funnel)
        return without_repeats(kept, protected.questions, "test", self.same_question, self.funnel)

    def _apart_from_val(self, train: Sequence[Question], val: Sequence[Question]) -> list[Question]:
        kept = without_answers_of(train, val, self.funnel)
        return without_repeats(kept, [question.text for question in val], "val", self.same_question, self.funnel)

    def _passages_of(self, questions: Iterable[Question]) -> frozenset[str]:
        """Ids of all passages of their documents, and of those that answer them."""
        asked = list(questions)
        documents = {name for question in asked for name in question.documents}
        inside = (item.id for item in self.converted.passages.values() if not documents.isdisjoint(item.documents))
        return frozenset(inside).union(*(question.positives for question in asked))

    def _cut(
        self, pool: Sequence[Question], ties: Sequence[Tie], ratios: Ratios
    ) -> tuple[dict[str, str], list[list[str]]]:
        """Document -> split for the questions whose split nothing names, and the groups that were assigned."""
        if not pool:
            needed = sum(ratio > 0 for ratio in ratios.values())
            raise PipelineError(
                f"no question is left for training: {self._lost()}: at least {needed} independent documents that the "
                "test set does not use are needed",
                fix="add documents that the test set does not use",
            )
        asked = {name for question in pool for name in question.documents}
        own = [question.documents for question in pool if len(question.documents) > 1]
        # All documents join the groups, also those without questions: A may share a passage with B by way of one.
        groups = [[name for name in group if name in asked] for group in document_groups(asked, [*ties, *own])]
        groups = [group for group in groups if group]
        types: dict[str, Counter[str]] = {}
        for question in pool:
            types.setdefault(question.documents[0], Counter())[str(question.metadata.get("query_type"))] += 1
        return assign(groups, ratios, self.config.seed, types), groups

    def _ratios(self, given: dict[str, list[Question]]) -> Ratios:
        """Shares of what is cut; a split that is given gets nothing of it."""
        config = self.config
        ratios = {"train": config.train_ratio, "val": config.val_ratio, "test": config.test_ratio}
        if self.frozen:
            ratios["train"] += ratios["test"]
            ratios["test"] = 0
        return {name: 0 if given[name] and name != "train" else ratio for name, ratio in ratios.items()}

    def _need_all(self, splits: dict[str, list[Question]], requested: list[str], groups: int) -> None:
        empty = [name for name in requested if not splits[name]]
        if empty:
            name = empty[0]
            raise PipelineError(
                f"the {name} split has no question left: {self._lost()}; {groups:,} independent documents with "
                f"questions are not enough, at least {len(empty)} more with questions of their own are needed",
                fix=f"add documents, or set another seed{'' if name == 'train' else f', or set {name}_ratio=0'}",
            )

    def _removed(self) -> Counter[str]:
        return Counter(item["reason"] for item in self.funnel.rejected[self.before :])

    def _lost(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._removed().most_common())
        return f"lost over all splits: {reasons}" if reasons else "the input holds none"

    def _close(self, splits: dict[str, list[Question]], groups: list[list[str]], near: NearTies) -> dict[str, Any]:
        documents = {name: len({doc for item in splits[name] for doc in item.documents}) for name in SPLITS}
        sizes, held = _listed({name: len(splits[name]) for name in SPLITS}), _listed(documents)
        total = sum(map(len, splits.values()))
        frozen = f"   frozen test set: {len(self.frozen.queries):,}" if self.frozen else ""
        self.funnel.close("split", total, f"{sizes}   documents: {held}, groups: {len(groups):,}{frozen}")
        if near.documents or near.passages:
            self.log.info(f"near-duplicates kept on one side: {near.documents:,} documents, {near.passages:,} passages")
        if near.boilerplate:
            self.log.info(f"{near.boilerplate:,} passages return in many documents: boilerplate, joins none of them")
        return {
            "documents": documents,
            "groups": len(groups),
            "largest_group": max(map(len, groups)),
            "near_duplicate_documents": near.documents,
            "near_duplicate_passages": near.passages,
            "boilerplate_passages": near.boilerplate,
            "removed": dict(self._removed()),
        }


def _order(question: Question) -> tuple[Any, ...]:
    return question.documents, question.text, question.id, question.positives, str(question.metadata)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
