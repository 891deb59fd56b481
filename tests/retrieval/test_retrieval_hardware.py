"""fp32 products by oneDNN: only where they are as exact as fp32."""

from __future__ import annotations

import pytest
import torch

from pipeline.retrieval import hardware
from pipeline.retrieval.hardware import use_fast_fp32


@pytest.fixture
def fresh_setting():
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    use_fast_fp32.cache_clear()
    yield setting
    setting.fp32_precision = before
    use_fast_fp32.cache_clear()


@pytest.mark.parametrize(
    "shape", [((2048, 384), (384, 1536)), ((700, 1536), (1536, 384)), ((4, 12, 230, 32), (4, 12, 32, 230))]
)
def test_products_stay_exact_forward_and_backward(fresh_setting, shape):
    use_fast_fp32()
    a, b = (torch.randn(size, generator=torch.Generator().manual_seed(1)).requires_grad_() for size in shape)
    product = a @ b
    exact = a.detach().double() @ b.detach().double()
    assert (product - exact).abs().max() < 2e-6 * a.shape[-1]
    product.sum().backward()
    expected = (
        b.detach().double().sum(-1).expand(a.shape)
        if b.dim() == 2
        else b.detach().double().sum(-1).unsqueeze(-2).expand(a.shape)
    )
    assert (a.grad - expected).abs().max() < 2e-6 * b.shape[-1]


def test_rounding_is_seen():
    assert hardware._is_exact(torch.matmul)
    assert not hardware._is_exact(lambda a, b: (a.bfloat16() @ b.bfloat16()).float())
    assert not hardware._is_exact(lambda a, b: a @ b if a.dim() == 2 else (a.bfloat16() @ b.bfloat16()).float())


def test_a_setting_that_rounds_is_taken_back(fresh_setting, monkeypatch):
    before = fresh_setting.fp32_precision
    monkeypatch.setattr(hardware, "_is_exact", lambda product: False)
    assert not use_fast_fp32()
    assert fresh_setting.fp32_precision == before
