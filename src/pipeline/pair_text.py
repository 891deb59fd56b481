"""A query and a passage as one model input: the pair's tokens, and what is cut when they are too many.

This module is free of torch: the ONNX server imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError

PairTokens = tuple[list[list[int]], list[int]]
"""Token ids of each pair (special tokens included, not padded), and where each pair's second segment begins: the
tokens from there on have token type 1. A pair that is one segment has its own length there."""
SHORTEST_PASSAGE = 16


@dataclass
class Cut:
    """How many pairs were read so far, and how many of them lost tokens of the passage or of the query."""

    pairs: int = 0
    passages: int = 0
    queries: int = 0

    def __str__(self) -> str:
        return f"{self.pairs:,} pairs, {self.passages:,} with a cut passage, {self.queries:,} with a cut query"


@dataclass(frozen=True)
class Room:
    """Tokens that stay of a query and of its passage."""

    query: int
    passage: int


def share_room(query: int, passage: int, room: int, max_length: int) -> Room:
    """Fit a query and a passage, in tokens, into `room` tokens of a pair of `max_length`.

    The passage is cut first. The query loses only what leaves the passage less than a quarter of `max_length` and
    fewer than 16 tokens; in very little room the query still keeps a quarter of it.
    """
    least = min(passage, max(max_length // 4, SHORTEST_PASSAGE), room - room // 4)
    kept = min(query, room - least)
    return Room(kept, min(passage, room - kept))


class PairTokenizer:
    """Pairs of texts to token ids under a contract; never longer than its `rerank_max_length`.

    Without a template the tokenizer's own form for two texts is used, its special tokens and token types included.
    With one, the whole text is tokenised at once and the tokenizer puts its special tokens around it. What was cut is
    counted in `cut`.

    `tokenizer` is one of transformers (fast) or of `tokenizers`. With `keep_end` a passage that is too long loses its
    start instead of its end.

    Raises:
        PipelineError: no fast tokenizer; a template without query or passage, or too long for the contract's length.
    """

    def __init__(self, tokenizer: Any, contract: EncodingContract, *, keep_end: bool = False) -> None:
        self.rules, self.keep_end = _plain_rules(tokenizer), keep_end
        self.contract, self.limit, self.cut = contract, contract.max_length("pair"), Cut()
        self._read: Callable[[Sequence[str], Sequence[str]], PairTokens] = self._two_segments
        if contract.prompt_template is not None:
            self._parts = contract.template_parts()
            self._opening, self._closing = special_tokens(tokenizer)
            self._read = self._one_segment

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> PairTokens:
        """Tokens of `queries[i]` with `passages[i]`; passages are formatted already (title, prefix)."""
        if len(queries) != len(passages):
            raise ValueError(f"{len(queries)} queries for {len(passages)} passages")
        return self._read(queries, passages) if queries else ([], [])

    def _two_segments(self, queries: Sequence[str], passages: Sequence[str]) -> PairTokens:
        room = self._checked(self.limit - self.rules.num_special_tokens_to_add(True))
        firsts = self.rules.encode_batch(list(queries), add_special_tokens=False)
        seconds = self.rules.encode_batch(list(passages), add_special_tokens=False)
        ids, starts = [], []
        for first, second in zip(firsts, seconds, strict=True):
            kept = self._counted(len(first.ids), len(second.ids), room)
            first.truncate(kept.query)
            second.truncate(kept.passage, direction="left" if self.keep_end else "right")
            pair = self.rules.post_process(first, second, True)
            ids.append(pair.ids)
            starts.append(pair.type_ids.index(1) if 1 in pair.type_ids else len(pair.ids))
        return ids, starts

    def _one_segment(self, queries: Sequence[str], passages: Sequence[str]) -> PairTokens:
        """Tokens of the rendered text, less the last tokens of passage and query where they are too many.

        A token belongs to the part in which it begins, so that a template's text always stays whole.
        """
        texts = [self.contract.format_pair(query, passage) for query, passage in zip(queries, passages, strict=True)]
        ids = []
        for text, query, passage in zip(
            self.rules.encode_batch(texts, add_special_tokens=False), queries, passages, strict=True
        ):
            ids.append(self._opening + self._shortened(text, query, passage) + self._closing)
        return ids, [len(item) for item in ids]

    def _shortened(self, text: Any, query: str, passage: str) -> list[int]:
        """The ids of a rendered text with as many tokens of query and passage as there is room for."""
        if len(text.ids) + len(self._opening) + len(self._closing) <= self.limit:
            self.cut.pairs += 1
            return text.ids
        length = {"{query}": len(query), "{passage}": len(passage)}
        before, first, between, second, _ = self._parts
        spans = {first: _span(text, len(before), length[first])}
        spans[second] = _span(text, len(before) + length[first] + len(between), length[second])
        sizes = {name: stop - start for name, (start, stop) in spans.items()}
        fixed = len(text.ids) - sum(sizes.values()) + len(self._opening) + len(self._closing)
        kept = self._counted(sizes["{query}"], sizes["{passage}"], self._checked(self.limit - fixed))
        stays = {"{query}": kept.query, "{passage}": kept.passage}
        ids, cut_from = [], 0
        for name in (first, second):
            start, stop = spans[name]
            lost = sizes[name] - stays[name]
            if self.keep_end and name == "{passage}":
                ids += text.ids[cut_from:start]
                cut_from = start + lost
            else:
                ids += text.ids[cut_from : stop - lost]
                cut_from = stop
        return ids + text.ids[cut_from:]

    def _counted(self, query: int, passage: int, room: int) -> Room:
        kept = share_room(query, passage, room, self.limit)
        self.cut.pairs += 1
        self.cut.passages += kept.passage < passage
        self.cut.queries += kept.query < query
        return kept

    def _checked(self, room: int) -> int:
        """`room` if a query and a passage fit into it at all."""
        if room < 2:
            raise PipelineError(
                f"rerank_max_length={self.limit} leaves no room for a text beside the template and special tokens",
                fix="raise rerank_max_length or shorten prompt_template",
            )
        return room


def _span(text: Any, begin: int, length: int) -> tuple[int, int]:
    """First and one past the last token of the characters [begin, begin + length)."""
    inside = [number for number, (start, _) in enumerate(text.offsets) if begin <= start < begin + length]
    if inside:
        return inside[0], inside[-1] + 1
    after = next((number for number, (start, _) in enumerate(text.offsets) if start >= begin), len(text.ids))
    return after, after


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a single text."""
    rules = _plain_rules(tokenizer)
    plain = rules.encode("a", add_special_tokens=False).ids
    whole = rules.encode("a").ids
    start = next(number for number in range(len(whole)) if whole[number : number + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def _plain_rules(tokenizer: Any) -> Any:
    """A copy of the fast tokenizer inside, which neither cuts nor pads; the caller's own stays as it is.

    Raises:
        PipelineError: there is none.
    """
    rules = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(rules, "post_process"):
        raise PipelineError(
            f"{type(tokenizer).__name__} has no fast form, which cutting pairs needs",
            fix="take a model whose folder holds a tokenizer.json",
        )
    rules = rules.from_str(rules.to_str())
    rules.no_truncation()
    rules.no_padding()
    return rules
