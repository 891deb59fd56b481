"""An exported bi-encoder: tokenizer file, ONNX graph and contract, used without torch or transformers.

The server computes with this class and the parity gate of export judges it: what was proven is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.contract import EncodingContract, tokenizer_rules_hash
from pipeline.errors import PipelineError
from pipeline.retrieval.batching import token_batches

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
METADATA_FILE = "metadata.json"

Tokens = list[list[int]]
Truncate = Literal["NONE", "START", "END"]
"""What to do with a text that is too long: refuse it, cut its start, or cut its end."""


class TextTooLong(PipelineError):
    """A text has more tokens than the model's limit, and cutting was not allowed."""

    def __init__(self, index: int, length: int, limit: int) -> None:
        super().__init__(f"text {index} has {length} tokens, the limit is {limit}", fix="use truncate END or START")


class OnnxEncoder:
    """Texts -> vectors through onnxruntime, under one contract. Safe to call from several threads."""

    def __init__(self, session: Any, tokenizer: Any, contract: EncodingContract) -> None:
        self.session, self.contract = session, contract
        self.pad_id: int = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._rules: str = tokenizer.to_str()
        self._tokenizers: dict[tuple[str, Truncate], Any] = {}

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> OnnxEncoder:
        """Open an export. `threads`: None lets onnxruntime choose (one per physical core).

        Raises:
            PipelineError: a file is missing or unreadable, or the tokenizer is not the contract's.
        """
        import onnxruntime

        contract = EncodingContract.load(folder)
        if contract is None:
            raise PipelineError(f"{folder} holds no encoding_contract.json", fix="export the model again")
        tokenizer = _open_tokenizer(folder / TOKENIZER_FILE, contract)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(f"cannot load {folder / MODEL_FILE}: {reason}", fix="export the model again") from error
        return cls(session, tokenizer, contract)

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
        width = max(len(item) for item in tokens)
        ids = np.full((len(tokens), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(tokens), width), dtype=np.int64)
        for row, item in enumerate(tokens):
            ids[row, : len(item)] = item
            mask[row, : len(item)] = 1
        return self.session.run(["embeddings"], {"input_ids": ids, "attention_mask": mask})[0]

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


def _open_tokenizer(path: Path, contract: EncodingContract) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise PipelineError(f"cannot read {path}: {error}", fix="export the model again") from error
    found = tokenizer_rules_hash(tokenizer)
    if contract.tokenizer_hash and found != contract.tokenizer_hash:
        raise PipelineError(
            f"{path} is not the tokenizer of the contract beside it ({found}, expected {contract.tokenizer_hash})",
            fix="export the model again; do not mix files of several models",
        )
    return tokenizer
