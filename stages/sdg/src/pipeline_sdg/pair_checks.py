"""The checks of the pairs in an answer: each pair by itself, and the mix of their types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline_sdg.chunking import Window
from pipeline_sdg.exchange import Fault
from pipeline_sdg.forms import one_line, whole_number
from pipeline_sdg.identifiers import invented, without_list_numbers
from pipeline_sdg.pair_hops import checked_hops, segments
from pipeline_sdg.pair_rules import HARDEST, MULTI_HOP, Pair, PairRules, Slot
from pipeline_sdg.parsing import list_in_reply
from pipeline_sdg.styles import PLAIN, SEARCH_WORDS, problem_of_style
from pipeline_sdg.wording import dangling_reference, ends_sensibly, problem_of, speaks_of_text, words

MOST_REPEATS = 3
"""How often a word may stand in a question: what compares three plans says "plan" three times."""
FIELDS = ("query_type", "reasoning_type", "query_style")


def key_of(pair: Pair) -> tuple[str, ...]:
    """What makes two pairs the same: the words of the question."""
    return tuple(words(pair["question"]))


def check(reply: str, window: Window, rules: PairRules, before: Sequence[Pair] = ()) -> tuple[list[Pair], list[Fault]]:
    """The usable pairs, tidied, and a fault for each of the others.

    `before`: pairs there are already, whose questions must not come again.
    """
    items, whole = list_in_reply(reply, "pairs")
    faults = [] if whole else [Fault("the answer is not one whole JSON object with a list `pairs`")]
    good: list[Pair] = []
    seen = {key_of(pair) for pair in before}
    for number, item in enumerate(items, 1):
        pair = checked(item, window, rules)
        if isinstance(pair, dict) and key_of(pair) in seen:
            pair = "asks the same as an earlier pair"
        if isinstance(pair, str):
            faults.append(Fault(f"pair {number}: {pair}", item))
        else:
            seen.add(key_of(pair))
            good.append(pair)
    return good, faults


def lacking(pairs: Sequence[Pair], slots: Sequence[Slot]) -> list[Fault]:
    """What pairs lack in number and mix."""
    faults: list[Fault] = []
    if len(pairs) < len(slots):
        faults.append(Fault(f"{len(slots)} usable pairs are needed, there are {len(pairs)}", remark=True))
    for name in FIELDS:
        wanted = Counter(getattr(slot, name) for slot in slots)
        found = Counter(pair.get(name, PLAIN) for pair in pairs)
        kinds = {**wanted, **found}
        if len(kinds) > 1:  # of a single kind the number above says it
            faults += [
                Fault(f"{name}: {wanted[kind]} {kind} are needed, there are {found[kind]}", remark=True)
                for kind in kinds
                if wanted[kind] != found[kind]
            ]
    return faults


def best_mix(pairs: list[Pair], slots: Sequence[Slot]) -> list[Pair]:
    """At most as many pairs as slots, in their order: first those that fit a slot, then those of which a type does."""
    if len(pairs) <= len(slots):
        return pairs
    types = [tuple(pair.get(name, PLAIN) for name in FIELDS) for pair in pairs]
    wanted = [tuple(getattr(slot, name) for name in FIELDS) for slot in slots]
    chosen: list[int] = []
    for fields in ((0, 1, 2), (0,), (1,), ()):  # which of FIELDS must have an open place
        free = Counter(tuple(kinds[field] for field in fields) for kinds in wanted)
        free.subtract(tuple(types[number][field] for field in fields) for number in chosen)
        for number, kinds in enumerate(types):
            place = tuple(kinds[field] for field in fields)
            if number not in chosen and free[place] > 0 and len(chosen) < len(slots):
                chosen.append(number)
                free[place] -= 1
    return [pairs[number] for number in sorted(chosen)]


def checked(item: Any, window: Window, rules: PairRules) -> Pair | str:
    """The pair of an answer in its documented form, or what is wrong with it."""
    if not isinstance(item, dict):
        return "is not an object"
    question, answer = one_line(item.get("question")), one_line(item.get("answer"))
    if not question or not answer:
        return "question or answer is empty"
    kinds = rules.allowed(window)
    for name, allowed in kinds.items():
        if item.get(name) not in allowed:
            return f"{name} must be one of {', '.join(allowed)}, not {item.get(name)!r}"
    reason = _problem_of_question(question, item.get("query_style") if rules.styled else PLAIN, window)
    if reason:
        return f"the question {reason}"
    complexity = whole_number(item.get("question_complexity"))
    if complexity is None or not rules.min_complexity <= complexity <= HARDEST:
        return f"question_complexity must be {rules.min_complexity} to {HARDEST}"
    segment_ids = segments(item.get("segment_ids"), window.segment_ids)
    if not segment_ids:
        return f"segment_ids must be some of {window.segment_ids}"
    reason = _problem_of_answer(answer, question, segment_ids, window)
    if reason:
        return f"the answer {reason}"
    hops = []
    if item["query_type"] == MULTI_HOP:
        hops = checked_hops(item, segment_ids, window.segment_ids, rules.min_hops, rules.most_hops(window))
    if isinstance(hops, str):
        return hops
    return {
        "question": question,
        "answer": answer,
        "question_complexity": complexity,
        **{name: item[name] for name in kinds},
        "segment_ids": segment_ids,
        "hop_count": max(1, len(hops)),
        "hop_contexts": hops,
    }


def _problem_of_question(question: str, style: str, window: Window) -> str | None:
    source = " \n ".join([window.title, *_titles(window.chunks), window.text])
    reason = problem_of(question, window.text, style not in SEARCH_WORDS, MOST_REPEATS)
    if reason := reason or problem_of_style(question, style) or _names_document(question, window, source):
        return reason
    if pointer := dangling_reference(question):
        return f'does not stand alone: "{pointer}" is named nowhere in it'
    if codes := invented(question, source):
        return f"has what the segments do not: {', '.join(codes)}"
    return None


def _problem_of_answer(answer: str, question: str, segment_ids: list[int], window: Window) -> str | None:
    """Codes and numbers come from the cited segments; what the question names may be said again."""
    if not ends_sensibly(answer):
        return "breaks off"
    cited = [chunk for chunk in window.chunks if chunk["chunk_id"] in segment_ids]
    source = " \n ".join([window.title, *_titles(cited), *(chunk["text"] for chunk in cited), question])
    if speaks_of_text(answer, source):
        return "speaks of the text instead of the matter"
    if reason := _names_document(answer, window, source):
        return reason
    if codes := invented(without_list_numbers(answer), source):
        return f"has what the cited segments {segment_ids} do not: {', '.join(codes)}"
    return None


def _names_document(text: str, window: Window, source: str) -> str | None:
    """The names by which the documents of a bundle are told apart are for the model alone."""
    for document in window.members:
        for name in (name for name in (document, document.rpartition("/")[2]) if not name.isalpha()):
            spoken = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
            if spoken.search(text) and not spoken.search(source):
                return f"names a document of the bundle: {name}"
    return None


def _titles(chunks: Sequence[dict[str, Any]]) -> list[str]:
    return [chunk["title"] for chunk in chunks]
