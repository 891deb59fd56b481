"""What one request for pairs says, how an answer is mended, and what a raised `num_pairs` pays for."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline_sdg import artifacts, pairs
from pipeline_sdg.artifacts import no_artifacts
from pipeline_sdg.chunking import Passage, Window
from pipeline_sdg.endpoints import QA
from pipeline_sdg.exchange import Outcome
from pipeline_sdg.journal import Reply
from pipeline_sdg.pair_checks import best_mix, lacking
from pipeline_sdg.pair_rules import Pair, PairRules, Slot
from pipeline_sdg.templates import Prompts, shipped

from pipeline.schemas.sdg import QUERY_TYPES, REASONING_TYPES

RULES = PairRules(10, {"multi_hop": 3, "structural": 2, "contextual": 2}, dict.fromkeys(REASONING_TYPES, 1))
NAMES = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "ivory", "jolly", "koala", "lemon"]


def window(**chunk: Any) -> Window:
    chunks = [{"chunk_id": n, "text": f"Text of {name}.", "title": "", **chunk} for n, name in enumerate(NAMES, 1)]
    return Window("a.md", "Pumps", 0, tuple(Passage(item, (item["text"],)) for item in chunks))


def prompt(rules: PairRules = RULES, shown: Window | None = None, before: tuple[Pair, ...] = ()) -> str:
    return pairs.exchange(shown or window(), rules, no_artifacts(), before=before).messages[0]["content"]


def slots_in(text: str) -> list[tuple[str, ...]]:
    return [tuple(line.split(", ")) for line in re.findall(r"^\d+\. (\w+, .+)$", text, re.MULTILINE)]


def pair(number: int, query_type: str, reasoning_type: str, *style: str) -> Pair:
    hop = {"hop_number": 1, "segment_ids": [1], "summary": "s"}
    return {
        "question": f"Where does one find the {NAMES[number]}?",
        "answer": "In the shed.",
        "question_complexity": 3,
        "query_type": query_type,
        "reasoning_type": reasoning_type,
        **({"query_style": style[0]} if style else {}),
        "segment_ids": [1],
        "hop_count": 1,
        "hop_contexts": [hop] if query_type == "multi_hop" else [],
    }


def test_the_request_lists_a_place_for_every_pair() -> None:
    text = prompt()
    assert "exactly 10 different pairs" in text
    found = slots_in(text)
    wanted = [(slot.query_type, slot.reasoning_type) for slot in RULES.slots(window())]
    assert found == wanted and len(found) == 10
    assert "visual" not in text and "query_style" not in text and "SEVERAL DOCUMENTS" not in text
    form = pairs.exchange(window(), RULES, no_artifacts()).schema["properties"]["pairs"]
    assert form["minItems"] == form["maxItems"] == 10
    assert "visual" not in form["items"]["properties"]["reasoning_type"]["enum"]
    assert "query_style" not in form["items"]["properties"]


def test_visual_styles_and_bundles_are_explained_where_they_are_asked_for() -> None:
    text = prompt(replace(RULES, visual=True, query_styles={"question": 1, "typo": 1}, personas=["a nurse"]))
    assert "- visual: " in text and "asked by one of these: a nurse" in text
    assert Counter(line[2] for line in slots_in(text)) == {"question": 5, "typo": 5}
    halves = [Passage(p.chunk | {"doc_id": "ab"[n % 2]}, p.sentences) for n, p in enumerate(window().passages)]
    bundle = replace(window(), passages=tuple(halves))
    assert "SEVERAL DOCUMENTS" in prompt(shown=bundle) and "- Segment 2 [b]: " in prompt(shown=bundle)
    alone, several = (artifacts.messages(shown, 2)[0]["content"] for shown in (window(), bundle))
    assert "several documents" in several and "several documents" not in alone
    assert alone.endswith(f"\n\nTEXT\n{window().text}")
    assert "TEXT\n- Segment 1 [a]: Text of amber.\n- Segment 2 [b]: Text of birch.\n" in several


def test_a_request_shows_the_headings_of_segments_but_not_the_page_s_own() -> None:
    assert "(Pumps > Care)\n- Segment 1: Text of amber.\n- Segment 2: " in prompt(shown=window(title="Pumps > Care"))
    assert "(Pumps" not in prompt(shown=window(title="Pumps"))


@pytest.mark.parametrize(("rules", "said"), [({}, "2 to 3"), ({"min_hops": 3}, "3 to 3"), ({"max_hops": 1}, "1 to 1")])
def test_no_request_asks_for_one_segment_that_alone_is_not_enough(rules: dict[str, int], said: str) -> None:
    assert f"the answer needs {said} segments together" in prompt(replace(RULES, **rules))


@pytest.mark.parametrize("profile", shipped())
def test_every_profile_names_the_language_and_warns_of_instructions(profile: str) -> None:
    prompts = Prompts.of(profile)
    text = pairs.exchange(window(), RULES, no_artifacts(), prompts).messages[0]["content"]
    assert "in the language of the segments" in text
    for shown in (text, artifacts.messages(window(), 2, prompts)[0]["content"]):
        assert "instructions" in shown and "not meant for you" in shown
    assert "in the language of the text" in shown


def test_pairs_speak_neither_of_segments_nor_of_the_names_of_documents() -> None:
    guide = [Passage(p.chunk | {"doc_id": "guide/timeouts.md"}, p.sentences) for p in window().passages]
    bundle = replace(window(), passages=tuple(guide))

    def problem(**changes: str) -> str:
        item = {**pair(0, "contextual", "factual"), **changes}
        _, found = pairs.check(json.dumps({"pairs": [item]}), bundle, RULES)
        return found[0].reason if found else ""

    assert problem() == ""
    assert "names a document of the bundle" in problem(answer="As timeouts.md says, it is in the shed.")
    assert "names a document of the bundle" in problem(question="Where does guide/timeouts.md put the amber?")
    assert "the answer speaks of the text" in problem(answer="According to segment 3, it is in the shed.")


def test_further_pairs_are_asked_for_beside_those_there_are() -> None:
    before = tuple(pair(n, *kinds) for n, kinds in enumerate(slots_in(prompt(replace(RULES, num_pairs=4)))))
    request = pairs.exchange(window(), RULES, no_artifacts(), before=before)
    text = request.messages[0]["content"]
    assert request.wanted == 6 and "exactly 6 different pairs" in text
    assert "- Where does one find the amber?\n" in text and "ALREADY" in text and "ALREADY" not in prompt()
    again = json.dumps({"pairs": [before[1], pair(9, "contextual", "causal")]})
    good, faults = request.check(again)
    assert [item["question"] for item in good] == [f"Where does one find the {NAMES[9]}?"]
    assert [fault.reason for fault in faults] == ["pair 1: asks the same as an earlier pair"]


def test_what_a_mix_lacks_is_told_and_the_best_mix_is_kept() -> None:
    slots = [Slot("multi_hop", "factual"), Slot("contextual", "causal")]
    wrong = [pair(0, "contextual", "factual"), pair(1, "contextual", "causal"), pair(2, "multi_hop", "factual")]
    assert best_mix(wrong, slots) == wrong[1:]
    assert lacking(wrong[1:], slots) == []
    assert [fault.reason for fault in lacking(wrong[:1], slots)] == [
        "2 usable pairs are needed, there are 1",
        "query_type: 1 multi_hop are needed, there are 0",
        "reasoning_type: 1 causal are needed, there are 0",
    ]
    styled = [Slot("contextual", "causal", "keyword")]
    assert [fault.reason for fault in lacking([pair(0, "contextual", "causal", "typo")], styled)] == [
        "query_style: 1 keyword are needed, there are 0",
        "query_style: 0 typo are needed, there are 1",
    ]
    assert best_mix(wrong[:2], slots[1:] * 3) == wrong[:2]


class FakeCaller:
    """Answers with pairs of the types asked for; `journal` outlives it, as on the disk."""

    def __init__(self, journal: dict[str, str], answer: Callable[[str, int], list[Pair]] | None = None) -> None:
        self.journal, self.first_run, self.paid = journal, not journal, 0
        self.answer = answer or (
            lambda text, start: [pair(start + n, *kinds) for n, kinds in enumerate(slots_in(text))]
        )
        self.usage = {QA: SimpleNamespace(repair_turns=0)}
        self.looked = 0

    def knows(self, role: str, messages: list[Any], schema: Any, max_tokens: int | None = None) -> bool:
        self.looked += 1
        return json.dumps([messages, schema]) in self.journal

    async def chat(self, role: str, messages: list[Any], schema: Any, max_tokens: int | None = None) -> Reply:
        key = json.dumps([messages, schema])
        if key not in self.journal:
            self.paid += 1
            text = messages[0]["content"]
            self.journal[key] = json.dumps({"pairs": self.answer(text, text.count("- Where does one"))})
        return Reply(self.journal[key], "stop", 1, 1)


def run(caller: FakeCaller, num_pairs: int) -> tuple[list[Pair], list[Outcome]]:
    rules = replace(RULES, num_pairs=num_pairs)
    found, asked = asyncio.run(pairs.pairs_of_window(caller, window(), rules, no_artifacts(), repair=True))
    return found, [outcome for _, outcome in asked]


def test_a_raised_num_pairs_pays_for_the_further_pairs_alone() -> None:
    journal: dict[str, str] = {}
    first = FakeCaller(journal)
    few, _ = run(first, 4)
    assert (first.paid, first.looked, len(few)) == (1, 0, 4)
    raised = FakeCaller(journal)
    more, outcomes = run(raised, 9)
    assert (raised.paid, len(outcomes)) == (1, 2)
    assert more[:4] == few and len(more) == 9
    whole = replace(RULES, num_pairs=9).slots(window())
    assert Counter(item["query_type"] for item in more) == Counter(slot.query_type for slot in whole)
    again = FakeCaller(journal)
    assert run(again, 9)[0] == more and again.paid == 0
    most, outcomes = run(again, 12)
    assert (again.paid, len(outcomes), len(most)) == (1, 3, 12) and most[:9] == more


def test_a_window_that_gave_too_few_is_not_asked_again_beyond_its_repair() -> None:
    caller = FakeCaller({}, lambda text, start: [pair(0, "contextual", "factual")])
    found, [outcome] = run(caller, 5)
    assert len(found) == 1 and caller.paid == 2  # the request and its repair turn
    assert "5 usable pairs are needed, there are 1" in [fault.reason for fault in outcome.faults]


def test_an_answer_without_anything_new_ends_the_chain() -> None:
    journal: dict[str, str] = {}
    run(FakeCaller(journal), 4)
    stubborn = FakeCaller(journal, lambda text, start: [pair(0, "contextual", "factual")])
    found, outcomes = run(stubborn, 8)
    assert len(found) == 4 and len(outcomes) == 2 and outcomes[1].good == []


@pytest.mark.parametrize("mended", [True, False])
def test_a_wrong_mix_gets_one_repair_turn_and_costs_no_pair(mended: bool) -> None:
    def answer(text: str, start: int) -> list[Pair]:
        wanted = slots_in(text)
        right = caller.paid > 1 and mended
        return [pair(n, *(kinds if right else ("contextual", "factual"))) for n, kinds in enumerate(wanted)]

    caller = FakeCaller({}, answer)
    found, [outcome] = run(caller, 6)
    assert caller.paid == 2 and len(found) == 6
    assert bool(outcome.faults) != mended
    assert all(fault.item is None for fault in outcome.faults)
    assert set(QUERY_TYPES) == {item["query_type"] for item in found} or not mended
