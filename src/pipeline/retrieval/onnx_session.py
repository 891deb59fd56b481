"""What every exported model has: ONNX graph, tokenizer file and contract, opened without torch or transformers.

The server computes with these classes and the parity gate of export judges them: what was proven is what is served.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from pipeline.contract import EncodingContract, tokenizer_rules_hash
from pipeline.errors import PipelineError
from pipeline.run.files import read_json

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
METADATA_FILE = "metadata.json"
LISTING_FILE = "exports.json"
"""Beside the folders of one export: which of them there are."""

Tokens = list[list[int]]
Truncate = Literal["NONE", "START", "END"]
"""What to do with a text that is too long: refuse it, cut its start, or cut its end."""


class TextTooLong(PipelineError):
    """A text has more tokens than the model's limit, and cutting was not allowed."""

    def __init__(self, index: int, length: int, limit: int) -> None:
        super().__init__(f"text {index} has {length} tokens, the limit is {limit}", fix="use truncate END or START")


class OnnxModel:
    """One open export. Safe to use from several threads."""

    family: ClassVar[str]
    """The family of models that this class can use."""

    def __init__(self, session: Any, tokenizer: Any, contract: EncodingContract) -> None:
        self.session, self.contract = session, contract
        self.pad_id: int = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._rules: str = tokenizer.to_str()

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Self:
        """Open an export. `threads`: None lets onnxruntime choose (one per physical core).

        A quantised export runs as it is written where its metadata asks for that (`optimise`: false).

        Raises:
            PipelineError: a file is missing or unreadable, the model is of the other family, or the tokenizer is not
                the contract's.
        """
        import onnxruntime

        contract = EncodingContract.load(folder)
        if contract is None:
            raise PipelineError(f"{folder} holds no encoding_contract.json", fix="export the model again")
        if contract.family != cls.family:
            raise PipelineError(
                f"{folder} holds a model for {contract.family}, not for {cls.family}",
                fix=f"use `pipeline {contract.family}` for it",
            )
        tokenizer = open_tokenizer(folder / TOKENIZER_FILE, contract)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        if not _optimised(folder / METADATA_FILE):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(
                str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(f"cannot load {folder / MODEL_FILE}: {reason}", fix="export the model again") from error
        return cls(session, tokenizer, contract)

    def with_session(self, session: Any) -> Self:
        """The same tokenizer and contract before another session: anything with onnxruntime's `run`."""
        other = copy.copy(self)
        other.session = session
        return other

    def padded(self, tokens: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Ids and mask (1 = token), padded on the right: both int64 [len(tokens), longest]."""
        width = max(len(item) for item in tokens)
        ids = np.full((len(tokens), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(tokens), width), dtype=np.int64)
        for row, item in enumerate(tokens):
            ids[row, : len(item)] = item
            mask[row, : len(item)] = 1
        return {"input_ids": ids, "attention_mask": mask}


def _optimised(path: Path) -> bool:
    """onnxruntime's optimiser moves 8-bit floats to where its own kernels refuse them."""
    return not path.is_file() or bool(read_json(path).get("optimise", True))


def open_tokenizer(path: Path, contract: EncodingContract) -> Any:
    """The `tokenizers.Tokenizer` of a file.

    Raises:
        PipelineError: it cannot be read, or is not the contract's.
    """
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
