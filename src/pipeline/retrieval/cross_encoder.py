"""The cross-encoder: query and passage read together, one score for the pair, used under one `EncodingContract`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.contract import EncodingContract
from pipeline.pair_text import Cut, PairTokenizer, PairTokens
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.collate import on_device, padded
from pipeline.retrieval.encoder import tokenizer_hash
from pipeline.retrieval.hardware import use_fast_fp32
from pipeline.retrieval.pooling import pool
from pipeline.retrieval.rerank_head import load_body_and_head
from pipeline.retrieval.transformer import LoadOptions, check_length, longest_input


class CrossEncoder(nn.Module):
    """Scores of pairs.

    With a `head` (fp32, one output) `body` gives token vectors, which are pooled as the contract says. Without one
    `body` is a ready `…ForSequenceClassification` that has its own pooling and head. `trained` is False where the head
    was drawn at random when the model was loaded.
    """

    trained = True

    def __init__(self, body: nn.Module, head: nn.Linear | None, tokenizer: Any, contract: EncodingContract) -> None:
        super().__init__()
        self.body, self.head, self.tokenizer, self.contract = body, head, tokenizer, contract
        self.pairs = PairTokenizer(tokenizer, contract)
        self._reads_types = (
            "token_type_ids" in tokenizer.model_input_names and getattr(body.config, "type_vocab_size", 0) > 1
        )

    @classmethod
    def load(
        cls,
        reference: str,
        contract: EncodingContract,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        options: LoadOptions | None = None,
        seed: int = 42,
    ) -> CrossEncoder:
        """Load a reranker, or a base model that gets a new head drawn by `seed` (announced in the log).

        Raises:
            PipelineError: the model cannot be found or read, is not for reranking, has more than one label, or cannot
                read `rerank_max_length` tokens.
        """
        use_fast_fp32()
        parts = load_body_and_head(reference, contract.pooling, dtype, options or LoadOptions(), seed)
        check_length(parts.body, contract.max_length("pair"), reference, "rerank_max_length")
        contract = contract.with_(
            family="rerank",
            pooling=parts.pooling,
            dimension=parts.body.config.hidden_size,
            tokenizer_hash=tokenizer_hash(parts.tokenizer),
            dtype=str(dtype).split(".")[1],
        )
        model = cls(parts.body, parts.head, parts.tokenizer, contract).to(device).eval()
        model.trained = parts.trained
        return model

    @property
    def device(self) -> torch.device:
        return next(self.body.parameters()).device

    @property
    def cut(self) -> Cut:
        """What tokenising cut so far."""
        return self.pairs.cut

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of padded pairs [batch, length] (token types where the model reads them): fp32 [batch]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.body(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.head is None:
            return output.logits[:, 0].float()
        vectors = pool(output.last_hidden_state, attention_mask, self.contract.pooling)
        # One output in bf16 has too few digits to rank by.
        with torch.autocast(vectors.device.type, enabled=False):
            return self.head(vectors)[:, 0]

    def tokenize(self, queries: Sequence[str], passages: Sequence[str]) -> PairTokens:
        """Ids of each pair and where its second segment begins; passages are formatted already."""
        return self.pairs(queries, passages)

    def collate(
        self, ids: Sequence[Sequence[int]], starts: Sequence[int], pad_to_multiple_of: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Pad on the right: ids, mask and token types, int64 [batch, length]; no types where the model has none."""
        pad_id = self.tokenizer.pad_token_id or 0
        padded_ids, mask = padded(ids, pad_id, self.device, pad_to_multiple_of, longest_input(self.body))
        if not self._reads_types:
            return padded_ids, mask, None
        second = np.arange(mask.shape[1]) >= np.asarray(starts)[:, None]
        return padded_ids, mask, on_device(second.astype(np.int64), self.device) * mask

    def score(
        self,
        queries: Sequence[str],
        passages: Sequence[str],
        *,
        batch_tokens: int = 16384,
        on_batch: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Logits of `queries[i]` with `passages[i]`: fp32 [n]. `on_batch(n)` is called after every batch of n pairs."""
        return self.score_tokens(self.tokenize(queries, passages), batch_tokens=batch_tokens, on_batch=on_batch)

    @torch.inference_mode()
    def score_tokens(
        self, pairs: PairTokens, *, batch_tokens: int = 16384, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Logits of pairs that are ALREADY tokenized: fp32 [n]."""
        ids, starts = pairs
        scores = np.empty(len(ids), dtype=np.float32)
        for batch in token_batches([len(item) for item in ids], batch_tokens):
            inputs = self.collate([ids[item] for item in batch], [starts[item] for item in batch])
            scores[batch] = self(*inputs).cpu().numpy()
            if on_batch:
                on_batch(len(batch))
        return scores
