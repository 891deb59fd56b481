from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.pooling import pool, token_vectors

MODES = ["avg", "weighted_avg", "cls", "last"]

TOKENS = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])


def padded(side: str, length: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Three tokens padded with values that would show if they were read."""
    hidden, mask = torch.full((1, length, 2), 777.0), torch.zeros((1, length), dtype=torch.long)
    place = slice(0, 3) if side == "right" else slice(length - 3, length)
    hidden[0, place], mask[0, place] = TOKENS, 1
    return hidden, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("avg", [3.0, 30.0]),
        ("weighted_avg", [pytest.approx(23 / 6), pytest.approx(230 / 6)]),
        ("cls", [1.0, 10.0]),
        ("last", [6.0, 60.0]),
    ],
)
def test_padding_on_either_side_is_never_read(mode, expected, side):
    assert pool(*padded(side), mode).tolist() == [expected]


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_several_lengths_equals_each_text_alone(mode):
    generator = torch.Generator().manual_seed(0)
    hidden, mask = torch.randn(6, 9, 4, generator=generator), torch.zeros(6, 9, dtype=torch.long)
    for row, length in enumerate((1, 3, 9, 5, 2, 8)):
        mask[row, :length] = 1
    together = pool(hidden, mask, mode)
    for row in range(6):
        length = int(mask[row].sum())
        alone = pool(hidden[row : row + 1, :length], mask[row : row + 1, :length], mode)
        torch.testing.assert_close(together[row : row + 1], alone)


def test_vectors_are_fp32_whatever_the_model_computes_in():
    hidden, mask = padded("right")
    for mode in MODES:
        assert pool(hidden.bfloat16(), mask, mode).dtype == torch.float32


def slowly(tokens: list[list[float]], mode: str) -> list[float]:
    """The definition of each mode over one text's tokens."""
    weights = {
        "avg": [1] * len(tokens),
        "weighted_avg": list(range(1, len(tokens) + 1)),
        "cls": [1] + [0] * (len(tokens) - 1),
        "last": [0] * (len(tokens) - 1) + [1],
    }[mode]
    columns = zip(*tokens, strict=True)
    return [sum(w * v for w, v in zip(weights, column, strict=True)) / sum(weights) for column in columns]


texts = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 10**6), st.sampled_from(MODES))
def test_every_mode_is_its_definition_for_any_padding(sizes, seed, mode):
    """Each text has its own padding before it; the rest stands behind it."""
    width = max(before + length for length, before in sizes)
    hidden = torch.randn(len(sizes), width, 3, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(len(sizes), width, dtype=torch.long)
    for row, (length, before) in enumerate(sizes):
        mask[row, before : before + length] = 1
    expected = [slowly(hidden[row][mask[row].bool()].tolist(), mode) for row in range(len(sizes))]
    torch.testing.assert_close(pool(hidden, mask, mode), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_weights_beyond_256_are_exact_in_bf16_too():
    hidden = torch.zeros(1, 2048, 1)
    hidden[0, -1], hidden[0, 0] = 1, 1
    expected = torch.tensor([[2049 / (2048 * 2049 / 2)]])
    with torch.autocast("cpu", torch.bfloat16):
        found = pool(hidden.bfloat16(), torch.ones(1, 2048, dtype=torch.long), "weighted_avg")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_token_vectors_have_length_one_and_padding_is_zero(side):
    hidden, mask = padded(side)
    vectors = token_vectors(hidden.bfloat16(), mask)
    assert vectors.dtype == torch.float32 and vectors.shape == (1, 5, 2)
    torch.testing.assert_close(vectors.norm(dim=-1), mask.float(), rtol=1e-3, atol=1e-3)
    assert torch.equal(token_vectors(hidden, mask, normalize=False)[mask.bool()], TOKENS)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="max"):
        pool(*padded("right"), "max")
