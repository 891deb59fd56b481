"""Single questions from a very small model (`qa_format: questions`).

A model of 100 million parameters cannot write typed pairs for a page. It can turn ONE statement into a question, if the
grammar holds it to the form of a question and the first words fit the statement. So each call shows one sentence of
the window, and everything else is filled in without a model: the answer is the sentence, the segment is its passage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal

from pipeline_sdg.chunking import Window
from pipeline_sdg.endpoints import QA
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.llm import Message, Schema
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import parse_object
from pipeline_sdg.quotas import in_turn, rotating_shares, turns_of
from pipeline_sdg.styles import PLAIN, SEARCH_WORDS, asked_for
from pipeline_sdg.templates import DEFAULT, Prompts
from pipeline_sdg.wording import content_words, invented_codes, is_question, problem_of, tidy, unsupported_words, words

LONGEST_ANSWER_TOKENS = 48
FEWEST_STATEMENT_WORDS = 5
SPARE_STATEMENTS = 1
LEAST_SUPPORT = 0.7
"""Share of a question's content words that must stand in the passage or the title: the rest is often made up."""

_LEANS_ON_PREVIOUS = re.compile(r"^(?:it|its|they|this|these|that|those|he|she|both|such)\b", re.IGNORECASE)
_CODE = re.compile(r"\b[A-Z]{1,4}-?\d{2,}\b")
_REASON = re.compile(r"\b(?:because|so that|since|otherwise|therefore)\b", re.IGNORECASE)
_DURATION = re.compile(
    r"\b(?:\d+|one|two|three|every|each) (?:second|minute|hour|day|night|week|month|year)s?\b", re.IGNORECASE
)
_CONDITION = re.compile(r"\b(?:if|when|while|unless|until)\b", re.IGNORECASE)
_DUTY = re.compile(r"\b(?:must|should|need|never|only|may|can)\b", re.IGNORECASE)
_ASKS_AMOUNT = re.compile(r"how (?:many|much|long|often)\b|what is the (?:value|number|amount)\b", re.IGNORECASE)
_REASONING = {
    "causal": re.compile(r"why\b|what happens\b", re.IGNORECASE),
    "temporal": re.compile(r"when\b|how (?:long|often)\b", re.IGNORECASE),
    "procedural": re.compile(r"how (?:do|can|to)\b|what do i do\b", re.IGNORECASE),
}
_ONE_SENTENCE = r'([^?.:;!"\\\n]|[0-9]\.[0-9])+'
"""No full stop but in numbers such as 3.2, so that the model cannot go on after the question."""


Style = Literal["question", "search"]
_PROMPTS: dict[Style, str] = {"question": "qa_small", "search": "qa_small_search"}
LONGEST: dict[Style, int] = {"question": 24, "search": 10}
"""Words."""
SEARCH_EVERY = 3
"""Every so manyth request is for the words of a search box instead of a question: people type both."""


@dataclass(frozen=True)
class Statement:
    """A sentence to ask about, the passage it stands in, and in which style to ask."""

    text: str
    segment_id: int
    style: Style = "question"
    query_style: str | None = None
    """What the pair says of its style, if styles are asked for."""


def statements(window: Window) -> list[Statement]:
    """The sentences of a window that say something, the richest first."""
    found: list[tuple[int, Statement]] = []
    for passage in window.passages:
        previous = ""
        for sentence in passage.sentences:
            plain = sentence.rpartition("\n")[2]  # less the heading before it
            text = f"{previous} {plain}" if previous and _LEANS_ON_PREVIOUS.match(plain) else plain
            if len(words(plain)) >= FEWEST_STATEMENT_WORDS:
                found.append((len(content_words(plain)), Statement(text, passage.chunk["chunk_id"])))
            previous = plain
    ranked = [statement for _, statement in sorted(found, key=lambda item: -item[0])]
    return [
        replace(statement, style="search") if number % SEARCH_EVERY == SEARCH_EVERY - 1 else statement
        for number, statement in enumerate(ranked)
    ]


def in_styles(found: list[Statement], window: Window, num_pairs: int, styles: Mapping[str, int]) -> list[Statement]:
    """The statements, each with the style it is to be asked in; as they are if only plain questions are wanted.

    A very small model knows two ways of asking: `short` becomes `keyword` and `persona` a plain question.
    """
    if not asked_for(styles):
        return found
    turn = turns_of(window)[-1]
    names = in_turn(rotating_shares(styles, num_pairs, turn), turn)
    near = {"short": "keyword", "persona": PLAIN}
    return [
        replace(statement, style="search" if name in SEARCH_WORDS else "question", query_style=near.get(name, name))
        for statement, name in zip(found, cycle(names), strict=False)
    ]


def openings(statement: str) -> list[str]:
    """First words that a question about this statement can have; the model chooses among them."""
    code = _CODE.search(statement)
    found = [f"What does {code.group(0)}"] if code else []
    if code and code.start() > 0:
        found += ["Which", "What is the"]
    if _REASON.search(statement):
        found.append("Why")
    if _DURATION.search(statement):
        found += ["How long", "How often", "When"]
    elif re.search(r"\d", statement):
        found += ["How many", "How much", "What is the"]
    if _CONDITION.search(statement):
        found += ["What happens if", "What happens when", "What do I do if"]
    if _DUTY.search(statement):
        found += ["How do I", "Can I", "Do I have to", "When must I"]
    return found[:3] or ["What is the", "Which", "Where", "Who", "How does", "How do I"]


def schema(statement: Statement) -> Schema:
    """One string that begins like a question about the statement and ends like one; or one without punctuation."""
    if statement.style == "search":
        pattern = f"^{_ONE_SENTENCE}$"
    else:
        beginnings = "|".join(openings(statement.text))  # letters, digits, spaces and hyphens: nothing to escape
        pattern = f"^({beginnings}) {_ONE_SENTENCE}\\?$"
    return {
        "type": "object",
        "properties": {"question": {"type": "string", "pattern": pattern}},
        "required": ["question"],
        "additionalProperties": False,
    }


def messages(statement: Statement, prompts: Prompts = DEFAULT) -> list[Message]:
    """The examples as turns of a conversation, which a small model follows better than instructions."""
    roles = {"system": "system", "statement": "user", "answer": "assistant"}
    turns = []
    for line in prompts.render(_PROMPTS[statement.style]).splitlines():
        kind, _, text = line.partition(": ")
        content = {"statement": f"Statement: {text}", "answer": json.dumps({"question": text})}.get(kind, text)
        turns.append({"role": roles[kind], "content": content})
    return [*turns, {"role": "user", "content": f"Statement: {statement.text}"}]


def exchanges(
    window: Window, num_pairs: int, prompts: Prompts = DEFAULT, styles: Mapping[str, int] | None = None
) -> Iterator[Exchange]:
    """One request for each statement, best statement first; stop when there are questions enough.

    A few statements more than pairs are offered, for questions that turn out unusable.
    """
    offered = statements(window)[: num_pairs + SPARE_STATEMENTS]
    for statement in in_styles(offered, window, num_pairs, styles or {}):
        yield Exchange(
            QA,
            messages(statement, prompts),
            schema(statement),
            lambda reply, statement=statement: check(reply, window, statement),
            wanted=1,
            max_tokens=LONGEST_ANSWER_TOKENS,
            same=lambda pair: tuple(words(pair["question"])),
        )


def check(reply: str, window: Window, statement: Statement) -> tuple[list[Pair], list[Fault]]:
    """The pair as a list of one, or why the question cannot be used."""
    value = parse_object(reply)
    question = tidy(str((value or {}).get("question") or ""))
    reason = "answer is not JSON" if value is None else fault_of(question, window, statement)
    return ([_pair(question, statement)], []) if reason is None else ([], [Fault(reason, question)])


def fault_of(question: str, window: Window, statement: Statement) -> str | None:
    """Why a question about a statement cannot be used, or None."""
    if statement.style == "question" and not is_question(question):
        return "is no question"
    if len(words(question)) > LONGEST[statement.style]:
        return "is too long"
    source = f"{window.title} {window.text}"
    reason = problem_of(question, source)
    if reason:
        return reason
    if invented_codes(question, source):
        return "has a code or number that the source does not"
    if _ASKS_AMOUNT.match(question) and any(word[0].isdigit() for word in words(question)):
        return "asks for an amount and names one"
    asked = content_words(question)
    if not asked & content_words(statement.text):
        return "has no word of its statement"
    if len(unsupported_words(question, source)) > (1 - LEAST_SUPPORT) * len(asked):
        return "speaks of things the source does not"
    names_a_code = any(character.isdigit() for word in asked for character in word)
    if not names_a_code and (len(asked) < 2 or asked <= content_words(window.title)):
        return "is too general"
    return None


def reasoning_type(question: str) -> str:
    """What a question's first words say about its kind."""
    found = (name for name, beginning in _REASONING.items() if beginning.match(question))
    return next(found, "factual")


def _pair(question: str, statement: Statement) -> Pair:
    return {
        "question": question,
        "answer": statement.text,
        "question_complexity": 1,
        "query_type": "contextual",
        "reasoning_type": reasoning_type(question),
        **({"query_style": statement.query_style} if statement.query_style else {}),
        "segment_ids": [statement.segment_id],
        "hop_count": 1,
        "hop_contexts": [],
    }
