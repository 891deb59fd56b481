"""Can a question be answered from its cited segments alone? A model answers it from them, with proof.

One call: the model quotes the words that answer the question, gives its own answer, and only then compares it with
the written one. The code does not take its word for it: what it quotes must stand in the segments.
"""

from __future__ import annotations

from typing import Any

from pipeline_sdg.calls.redaction import STAND_IN
from pipeline_sdg.chunking import Chunk
from pipeline_sdg.endpoints import JUDGE
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.forms import TEXT, YES_OR_NO, list_of, object_of, one_line
from pipeline_sdg.judge import Evaluation, cited, shown, with_title
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import parse_object
from pipeline_sdg.templates import DEFAULT, Prompts
from pipeline_sdg.wording import words

MOST_QUOTES = 4

Verdict = dict[str, Any]
"""answerable, supported (bool), answer (str), evidence (list of quotes)"""


def exchange(pair: Pair, chunks: list[Chunk], prompts: Prompts = DEFAULT) -> Exchange:
    """The request for one pair; the model sees its cited segments and nothing else of the document."""
    segments = cited(pair, chunks)
    prompt = prompts.render("answerable", segments=shown(segments), question=pair["question"], answer=pair["answer"])
    source = [with_title(chunk) for chunk in segments]
    return Exchange(
        JUDGE, [{"role": "user", "content": prompt}], schema(), lambda reply: check(reply, source), wanted=1
    )


def schema() -> dict[str, Any]:
    """Evidence and own answer come before the verdicts that follow from them."""
    return object_of(
        {
            "evidence": list_of(TEXT, 0, MOST_QUOTES),
            "answer": TEXT,
            "answerable": YES_OR_NO,
            "supported": YES_OR_NO,
        }
    )


def check(reply: str, segments: list[str]) -> tuple[list[Verdict], list[Fault]]:
    """The verdict as a list of one, or what is wrong with it."""
    value = parse_object(reply)
    if value is None:
        return [], [Fault("the answer is not one whole JSON object")]
    faults = [
        Fault(f"{name} must be true or false")
        for name in ("answerable", "supported")
        if not isinstance(value.get(name), bool)
    ]
    listed = value.get("evidence")
    quotes = [one_line(quote) for quote in listed] if isinstance(listed, list) else []
    answer = one_line(value.get("answer"))
    if faults:
        return [], faults
    if value["answerable"]:
        faults = _faults_of_proof(quotes, answer, segments)
    elif value["supported"]:
        faults = [Fault("what cannot be answered cannot be supported: mend answerable or supported")]
    verdict = {
        "answerable": value["answerable"],
        "supported": value["supported"],
        "answer": answer,
        "evidence": [quote for quote in quotes if quote],
    }
    return ([], faults) if faults else ([verdict], [])


def with_verdict(evaluation: Evaluation, verdict: Verdict | None) -> Evaluation:
    """The evaluation with `answerable`: true if the segments carry the written answer; null if nobody could say."""
    if verdict is None:
        return {**evaluation, "answerable": None}
    return {**evaluation, "answerable": verdict["answerable"] and verdict["supported"], "answer_check": verdict}


def _faults_of_proof(quotes: list[str], answer: str, segments: list[str]) -> list[Fault]:
    if not answer:
        return [Fault("answerable is true, but answer is empty")]
    if not any(words(quote) for quote in quotes):
        return [Fault("answerable is true, but evidence quotes nothing from the segments")]
    return [
        Fault(f"evidence must be copied word for word from one segment; this stands in none: {quote!r:.120}", quote)
        for quote in quotes
        if words(quote) and not _stands_in(quote, segments)
    ]


def _stands_in(quote: str, segments: list[str]) -> bool:
    """Whether the letters and digits of a quote stand in one segment in this order, whatever else stands between.

    The model may have seen the segment redacted: what a stand-in is for can be anything.
    """
    parts = ["".join(words(part)) for part in STAND_IN.split(quote)]
    return any(_in_order(parts, "".join(words(segment))) for segment in segments)


def _in_order(parts: list[str], text: str) -> bool:
    at = 0
    for part in parts:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True
