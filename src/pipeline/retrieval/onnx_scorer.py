"""An exported cross-encoder, used without torch or transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.pair_text import PairTokenizer
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.onnx_session import OnnxModel, TextTooLong, Tokens, Truncate

OUTPUT = "logits"
TYPES_INPUT = "token_type_ids"


class PairIds(list[int]):
    """Token ids of a pair that know where their second segment begins: from `second` on the token type is 1."""

    def __init__(self, ids: Iterable[int], second: int) -> None:
        super().__init__(ids)
        self.second = second


class OnnxScorer(OnnxModel):
    """Pairs (query, passage) -> logits through onnxruntime, under one contract.

    A model that reads token types (its graph has that input) gets them from the `PairIds` that `tokenize` gives, so
    these must reach `forward` as they are. A plain list of ids counts as one segment.
    """

    family = "rerank"

    def __init__(self, session: Any, tokenizer: Any, contract: EncodingContract) -> None:
        super().__init__(session, tokenizer, contract)
        self._reads_types = TYPES_INPUT in {item.name for item in session.get_inputs()}
        self._tokenizers: dict[Truncate, PairTokenizer] = {}

    def tokenize(self, pairs: Sequence[tuple[str, str]], truncate: Truncate = "END") -> Tokens:
        """Token ids (`PairIds`) of (query, passage), the passage ALREADY formatted by the contract (title, prefix).

        END cuts the end of a passage that is too long, START its start. A query loses its end only where it leaves
        the passage too little room (`pipeline.pair_text.share_room`), as in training.

        Raises:
            TextTooLong: a pair is beyond the limit and `truncate` is NONE.
        """
        limit = self.contract.max_length("pair")
        ids, starts = self._tokenizer(truncate)([query for query, _ in pairs], [passage for _, passage in pairs])
        for index, item in enumerate(ids):
            if len(item) > limit:
                raise TextTooLong(index, len(item), limit)
        return [PairIds(item, start) for item, start in zip(ids, starts, strict=True)]

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Logits of one batch: fp32 [len(tokens)]."""
        inputs = self.padded(tokens)
        if self._reads_types:
            starts = np.array([getattr(item, "second", len(item)) for item in tokens])
            second = np.arange(inputs["input_ids"].shape[1]) >= starts[:, None]
            inputs[TYPES_INPUT] = second * inputs["attention_mask"]
        return self.session.run([OUTPUT], inputs)[0][:, 0]

    def score_tokens(self, tokens: Tokens, *, batch_tokens: int = 2048) -> np.ndarray:
        """Logits of any number of tokenized pairs, batched by length: fp32 [len(tokens)]."""
        scores = np.empty(len(tokens), dtype=np.float32)
        for batch in token_batches([len(item) for item in tokens], batch_tokens):
            scores[batch] = self.forward([tokens[index] for index in batch])
        return scores

    def score(self, pairs: Sequence[tuple[str, str]], batch_tokens: int = 2048) -> np.ndarray:
        """Logits of (query, passage), in the order of `pairs`: fp32 [len(pairs)]."""
        return self.score_tokens(self.tokenize(pairs), batch_tokens=batch_tokens)

    def _tokenizer(self, truncate: Truncate) -> PairTokenizer:
        # What is cut is a setting of the tokenizer object, so each setting has an object of its own: no lock needed.
        found = self._tokenizers.get(truncate)
        if found is None:
            from tokenizers import Tokenizer

            contract = self.contract
            if truncate == "NONE":
                contract = contract.with_(rerank_max_length=sys.maxsize)
            found = PairTokenizer(Tokenizer.from_str(self._rules), contract, keep_end=truncate == "START")
            self._tokenizers[truncate] = found
        return found
