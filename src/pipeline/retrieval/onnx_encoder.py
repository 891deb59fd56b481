"""An exported bi-encoder, used without torch or transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.onnx_session import (
    METADATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    OnnxModel,
    TextTooLong,
    Tokens,
    Truncate,
)

__all__ = ["METADATA_FILE", "MODEL_FILE", "TOKENIZER_FILE", "OnnxEncoder", "TextTooLong", "Tokens", "Truncate"]


class OnnxEncoder(OnnxModel):
    """Texts -> vectors through onnxruntime, under one contract."""

    family = "embed"

    def __init__(self, session: Any, tokenizer: Any, contract: EncodingContract) -> None:
        super().__init__(session, tokenizer, contract)
        self._tokenizers: dict[tuple[str, Truncate], Any] = {}

    @property
    def dimension(self) -> int:
        return int(self.contract.dimension or self.session.get_outputs()[0].shape[-1])

    def tokenize(self, texts: Sequence[str], kind: str, truncate: Truncate = "END") -> Tokens:
        """Token ids of texts that are ALREADY formatted by the contract; `kind` picks the length limit.

        Raises:
            TextTooLong: a text is beyond the limit and `truncate` is NONE.
        """
        limit = self.contract.max_length(kind)
        tokens = [item.ids for item in self._tokenizer(kind, truncate).encode_batch(list(texts))]
        for index, item in enumerate(tokens):
            if len(item) > limit:
                raise TextTooLong(index, len(item), limit)
        return tokens

    def forward(self, tokens: Tokens) -> np.ndarray:
        """Vectors of one batch: fp32 [len(tokens), dimension]."""
        return self.session.run(["embeddings"], self.padded(tokens))[0]

    def encode_tokens(self, tokens: Tokens, *, batch_tokens: int = 2048) -> np.ndarray:
        """Vectors of any number of tokenized texts, batched by length: fp32 [len(tokens), dimension]."""
        vectors = np.empty((len(tokens), self.dimension), dtype=np.float32)
        for batch in token_batches([len(item) for item in tokens], batch_tokens):
            vectors[batch] = self.forward([tokens[index] for index in batch])
        return vectors

    def _tokenizer(self, kind: str, truncate: Truncate) -> Any:
        # Truncation is a setting of the tokenizer object, so each setting has an object of its own: no lock needed.
        found = self._tokenizers.get((kind, truncate))
        if found is None:
            from tokenizers import Tokenizer

            found = Tokenizer.from_str(self._rules)
            if truncate != "NONE":
                direction = "right" if truncate == "END" else "left"
                found.enable_truncation(self.contract.max_length(kind), direction=direction)
            self._tokenizers[kind, truncate] = found
        return found
