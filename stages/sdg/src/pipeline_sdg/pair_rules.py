"""What is asked for in one call: how many pairs, of which types, each with a place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.schemas.sdg import QUERY_TYPES, REASONING_TYPES
from pipeline_sdg.chunking import Window
from pipeline_sdg.quotas import in_blocks, in_turn, remaining, rotating_shares, turns_of, without
from pipeline_sdg.styles import PLAIN, asked_for

Pair = dict[str, Any]
HARDEST = 5
MULTI_HOP = "multi_hop"
VISUAL = "visual"


@dataclass(frozen=True)
class Slot:
    """What one pair is to be. The names are those of the pair's fields."""

    query_type: str
    reasoning_type: str
    query_style: str = PLAIN


@dataclass(frozen=True)
class PairRules:
    """What is asked for, and therefore checked. The counts are shares; they are rescaled to `num_pairs`.

    `strategy` is the order in which a bundle's passages are shown.
    """

    num_pairs: int
    query_counts: Mapping[str, int]
    reasoning_counts: Mapping[str, int]
    min_hops: int = 1
    max_hops: int = 3
    min_complexity: int = 2
    num_sections: int = 1
    visual: bool = False
    query_styles: Mapping[str, int] = field(default_factory=lambda: {PLAIN: 1})
    personas: Sequence[str] = ()
    strategy: str = "sequential"

    @property
    def styled(self) -> bool:
        """Whether pairs have a `query_style`."""
        return asked_for(self.query_styles)

    def weights(self, window: Window) -> dict[str, Mapping[str, int]]:
        """The shares by field of a pair, of what this window can carry.

        One passage connects nothing, and text has nothing to see unless `visual` says so: the other types then take
        the share, in equal parts if no other one was asked for.
        """
        queries, reasons = self.query_counts, self.reasoning_counts
        if len(window.chunks) < max(2, self.min_hops):
            queries = without(queries, MULTI_HOP, QUERY_TYPES)
        if not self.visual:
            reasons = without(reasons, VISUAL, REASONING_TYPES)
        fields = {"query_type": queries, "reasoning_type": reasons}
        return {**fields, "query_style": self.query_styles} if self.styled else fields

    def allowed(self, window: Window) -> dict[str, list[str]]:
        """By field, the types that a pair of this window may have."""
        return {name: [kind for kind, share in of.items() if share] for name, of in self.weights(window).items()}

    def most_hops(self, window: Window) -> int:
        return max(min(self.max_hops, len(window.chunks)), self.min_hops)

    def slots(self, window: Window, before: Sequence[Pair] = ()) -> list[Slot]:
        """The places of the pairs to ask for: exact shares of every field, and all their combinations in turn.

        With few pairs not every type has a place in every window; they take turns, so that the shares are right over
        the corpus. `before`: pairs there are already; the places are then those of the whole less theirs.
        """
        wanted = max(0, self.num_pairs - len(before))
        turns = dict(zip(("query_type", "reasoning_type", "query_style"), turns_of(window), strict=True))
        places = {}
        for name, weights in self.weights(window).items():
            whole = rotating_shares(weights, self.num_pairs, turns[name])
            quota = remaining(whole, [pair.get(name, "") for pair in before], wanted)
            places[name] = (in_blocks if name == "reasoning_type" else in_turn)(quota, turns[name])
        return [Slot(**dict(zip(places, kinds, strict=True))) for kinds in zip(*places.values(), strict=True)]
