"""The bi-encoder: a transformer, pooling and normalisation, used under one `EncodingContract`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, tokenizer_rules_hash
from pipeline.errors import PipelineError
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.pooling import pool
from pipeline.run.snapshot import sha256_of

Tokens = list[list[int]]
"""Token ids of each text, special tokens included, not padded."""


@dataclass(frozen=True)
class LoadOptions:
    """How weights are fetched and what may run for them."""

    revision: str | None = None
    trust_remote_code: bool = False
    attn_implementation: str | None = None


class BiEncoder(nn.Module):
    """A text encoder. `forward` maps padded tokens to vectors [batch, dimension] (fp32, unit length if normalised)."""

    def __init__(self, model: nn.Module, tokenizer: Any, contract: EncodingContract) -> None:
        super().__init__()
        self.model, self.tokenizer, self.contract = model, tokenizer, contract

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

        Raises:
            PipelineError: the model cannot be found or read; lengths beyond the model's positions.
        """
        options = options or LoadOptions()
        model, tokenizer = _load_transformer(reference, dtype, options)
        positions = getattr(model.config, "max_position_embeddings", None)
        longest = max(contract.query_max_length, contract.passage_max_length)
        if positions and longest > positions:
            raise PipelineError(
                f"{reference} reads at most {positions} tokens, but a max length of {longest} is asked for",
                fix=f"set query_max_length and passage_max_length to at most {positions}",
            )
        contract = contract.with_(
            dimension=model.config.hidden_size, tokenizer_hash=tokenizer_hash(tokenizer), dtype=str(dtype).split(".")[1]
        )
        return cls(model, tokenizer, contract).to(device).eval()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
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

    def collate(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad to the longest: ids and mask, both int64 [batch, length], on the model's device."""
        width = max(len(item) for item in tokens)
        ids = torch.full((len(tokens), width), self.tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((len(tokens), width), dtype=torch.long)
        for row, item in enumerate(tokens):
            ids[row, : len(item)] = torch.tensor(item)
            mask[row, : len(item)] = 1
        return ids.to(self.device, non_blocking=True), mask.to(self.device, non_blocking=True)

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
        return self.encode_tokens(self.tokenize(texts, kind), batch_tokens=batch_tokens, on_batch=on_batch)

    @torch.inference_mode()
    def encode_tokens(
        self, tokens: Tokens, *, batch_tokens: int = 16384, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Vectors of texts that are ALREADY tokenized: fp32 [len(tokens), dimension]."""
        vectors = np.empty((len(tokens), self.contract.dimension or 0), dtype=np.float32)
        for batch in token_batches([len(item) for item in tokens], batch_tokens):
            vectors[batch] = self(*self.collate([tokens[index] for index in batch])).float().cpu().numpy()
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


def _load_transformer(reference: str, dtype: torch.dtype, options: LoadOptions) -> tuple[nn.Module, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    place = resolve_model(reference)
    common: dict[str, Any] = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
        model = AutoModel.from_pretrained(place, dtype=dtype, use_safetensors=True, **attention, **common)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(
            f"cannot load the model {reference}: {reason}",
            fix="give an existing folder or hub id; `embedded:all-MiniLM-L6-v2` needs no network",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hex digits over the tokenizer's own file (its rules and vocabulary)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return sha256_of(Path(tokenizer.vocab_file))[:16] if backend is None else tokenizer_rules_hash(backend)
