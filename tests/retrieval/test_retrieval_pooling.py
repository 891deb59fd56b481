from __future__ import annotations

import pytest
import torch

from pipeline.retrieval.pooling import pool

TOKENS = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])


def padded(side: str, length: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Three tokens padded with values that would show if they were read."""
    hidden, mask = torch.full((1, length, 2), 777.0), torch.zeros((1, length), dtype=torch.long)
    place = slice(0, 3) if side == "right" else slice(length - 3, length)
    hidden[0, place], mask[0, place] = TOKENS, 1
    return hidden, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("mode", "expected"), [("avg", [3.0, 30.0]), ("cls", [1.0, 10.0]), ("last", [6.0, 60.0])])
def test_padding_on_either_side_is_never_read(mode, expected, side):
    assert pool(*padded(side), mode).tolist() == [expected]


@pytest.mark.parametrize("mode", ["avg", "cls", "last"])
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
    for mode in ("avg", "cls", "last"):
        assert pool(hidden.bfloat16(), mask, mode).dtype == torch.float32


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="max"):
        pool(*padded("right"), "max")
