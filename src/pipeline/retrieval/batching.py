"""Group texts into batches by tokens, not by count: long texts never sit beside short ones."""

from __future__ import annotations

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], max_tokens: int, max_texts: int | None = None) -> list[list[int]]:
    """Indices in batches of similar length with at most `max_tokens` padded tokens each; longest batch first.

    `max_texts` bounds the texts of a batch too.

    The longest first, so that running out of memory shows at once. A text longer than the budget is a batch alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        last = batches[-1] if batches else []
        if last and (len(last) + 1) * lengths[last[0]] <= max_tokens and len(last) != max_texts:
            last.append(index)
        else:
            batches.append([index])
    return batches


def padding_share(lengths: Sequence[int], batches: list[list[int]]) -> float:
    """Share of computed tokens that are padding."""
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return 1 - sum(lengths) / padded if padded else 0.0
