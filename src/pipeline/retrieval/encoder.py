"""The bi-encoder: a transformer, pooling and normalisation, used under one `EncodingContract`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, tokenizer_rules_hash
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.collate import Tokens, padded
from pipeline.retrieval.hardware import use_fast_fp32
from pipeline.retrieval.pooling import pool, token_vectors
from pipeline.retrieval.transformer import LoadOptions, check_length, load_transformer, longest_input
from pipeline.run.snapshot import sha256_of

__all__ = ["QUERY_FOLDER", "BiEncoder", "LoadOptions", "Tokens", "tokenizer_hash"]

QUERY_FOLDER = "query"
"""Sub-folder of the queries' own encoder, where there are two."""


class BiEncoder(nn.Module):
    """A text encoder. `forward` maps padded tokens to vectors.

    `model` encodes passages, and queries too unless `query_model` is given (`contract.share_encoder` is False).
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, contract: EncodingContract, query_model: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.contract, self.query_model = model, tokenizer, contract, query_model

    @classmethod
    def load(
        cls,
        reference: str,
        contract: EncodingContract,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        options: LoadOptions | None = None,
    ) -> BiEncoder:
        """Load a hub id, a folder or an `embedded:` model.

        With `contract.share_encoder` False the queries' encoder is the sub-folder `query`; a model without one gives
        two encoders that start equal.

        Raises:
            PipelineError: the model cannot be found or read; lengths beyond the model's positions.
        """
        use_fast_fp32()
        model, tokenizer = load_transformer(reference, dtype, options)
        longest = max(contract.query_max_length, contract.passage_max_length)
        check_length(model, longest, reference, "query_max_length and passage_max_length")
        query_model = None
        if not contract.share_encoder:
            query_model = _query_model(reference, dtype, options) or copy.deepcopy(model)
        contract = contract.with_(
            dimension=model.config.hidden_size, tokenizer_hash=tokenizer_hash(tokenizer), dtype=str(dtype).split(".")[1]
        )
        return cls(model, tokenizer, contract, query_model).to(device).eval()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def body_of(self, kind: str) -> nn.Module:
        """The transformer that reads `kind` ("query" or "passage")."""
        return self.query_model if kind == "query" and self.query_model is not None else self.model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, kind: str = "passage") -> torch.Tensor:
        """Vectors of padded tokens [batch, length]: fp32 [batch, dimension], of unit length if normalised.

        With pooling "colbert" fp32 [batch, length, dimension], one for each token and zero for padding.
        """
        hidden = self.body_of(kind)(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.contract.pooling == "colbert":
            return token_vectors(hidden, attention_mask, self.contract.normalize)
        vectors = pool(hidden, attention_mask, self.contract.pooling)
        return nn.functional.normalize(vectors, dim=-1) if self.contract.normalize else vectors

    def tokenize(self, texts: Sequence[str], kind: str) -> Tokens:
        """Token ids of formatted texts; `kind` ("query" or "passage") picks the length they are cut to."""
        if not texts:
            return []
        cut = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.contract.max_length(kind),
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return cut["input_ids"]

    def collate(
        self, tokens: Sequence[Sequence[int]], pad_to_multiple_of: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad on the right to the longest: ids and mask, both int64 [batch, length], on the model's device."""
        pad_id = self.tokenizer.pad_token_id or 0
        return padded(tokens, pad_id, self.device, pad_to_multiple_of, longest_input(self.model))

    def encode(
        self,
        texts: Sequence[str],
        kind: str,
        *,
        batch_tokens: int = 16384,
        on_batch: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of texts that are ALREADY formatted by the contract: fp32 [len(texts), dimension].

        `on_batch(n)` is called after every batch with the number of texts in it.
        """
        return self.encode_tokens(self.tokenize(texts, kind), kind, batch_tokens=batch_tokens, on_batch=on_batch)

    @torch.inference_mode()
    def encode_tokens(
        self,
        tokens: Tokens,
        kind: str = "passage",
        *,
        batch_tokens: int = 16384,
        batch_texts: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of texts that are ALREADY tokenized: fp32 [len(tokens), dimension].

        With pooling "colbert" fp32 [len(tokens), longest, dimension], zero beyond each text's end.
        """
        lengths = [len(item) for item in tokens]
        per_token = self.contract.pooling == "colbert"
        shape = (len(tokens), *([max(lengths, default=0)] if per_token else []), self.contract.dimension or 0)
        vectors = np.zeros(shape, dtype=np.float32)
        for batch in token_batches(lengths, batch_tokens, batch_texts):
            found = self(*self.collate([tokens[index] for index in batch]), kind).float().cpu().numpy()
            if per_token:
                vectors[batch, : found.shape[1]] = found
            else:
                vectors[batch] = found
            if on_batch:
                on_batch(len(batch))
        return vectors

    def encode_queries(self, texts: Sequence[str], **how: Any) -> np.ndarray:
        """Vectors of raw queries; the contract's prefix is put before each."""
        return self.encode([self.contract.format_query(text) for text in texts], "query", **how)

    def encode_passages(self, texts: Sequence[str], titles: Sequence[str] | None = None, **how: Any) -> np.ndarray:
        """Vectors of raw passages; the contract's prefix (and the title) is put before each."""
        titles = titles or [""] * len(texts)
        pairs = zip(texts, titles, strict=True)
        return self.encode([self.contract.format_passage(text, title) for text, title in pairs], "passage", **how)


def _query_model(reference: str, dtype: torch.dtype, options: LoadOptions | None) -> nn.Module | None:
    """The queries' own encoder beside a saved one, a whole model by itself; None for other models."""
    folder = Path(resolve_model(reference)) / QUERY_FOLDER
    if not (folder / "config.json").is_file():
        return None
    local = replace(options or LoadOptions(), revision=None, extract_submodel=None)
    return load_transformer(str(folder), dtype, local)[0]


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hex digits over the tokenizer's own file (its rules and vocabulary)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return sha256_of(Path(tokenizer.vocab_file))[:16] if backend is None else tokenizer_rules_hash(backend)
