"""How a text becomes a vector or a score: one object, kept beside the weights, used by every stage and the server.

Most serving bugs of this field are a prefix, pooling, normalisation or length that differs between training and use.
This module is free of torch: the ONNX server imports it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, write_json

FILE_NAME = "encoding_contract.json"
_POOLING_OF = {"mean": "avg", "cls": "cls", "lasttoken": "last"}
_FORMAT_KEYS = {
    "query_prefix": "query_prefix",
    "passage_prefix": "passage_prefix",
    "query_max_length": "query_max_length",
    "passage_max_length": "passage_max_length",
    "pooling": "pooling",
    "l2_normalize": "normalize",
}
"""Configuration key -> contract field."""


@dataclass(frozen=True)
class EncodingContract:
    """Everything that must be equal between training and use of one model.

    `query_prefix` and `passage_prefix` are put before the text verbatim. Lengths are in tokens and include special
    tokens. `dimension`, `dtype` and `tokenizer_hash` describe the weights and are filled in by whoever saves them.
    """

    family: str = "embed"
    base_model: str = ""
    revision: str | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    prompt_template: str | None = None
    query_max_length: int = 512
    passage_max_length: int = 512
    pooling: str = "avg"
    normalize: bool = True
    temperature: float | None = None
    dimension: int | None = None
    dtype: str | None = None
    tokenizer_hash: str | None = None

    def format_query(self, text: str) -> str:
        return self.query_prefix + text

    def format_passage(self, text: str, title: str = "") -> str:
        return self.passage_prefix + (f"{title} {text}" if title else text)

    def max_length(self, kind: str) -> int:
        """Longest input in tokens for `kind` "query" or "passage"."""
        return self.query_max_length if kind == "query" else self.passage_max_length

    def digest(self) -> str:
        """16 hex digits that change when anything that moves a vector changes (temperature does not)."""
        fields = {name: value for name, value in asdict(self).items() if name != "temperature"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> Path:
        return write_json(folder / FILE_NAME, {"schema_version": 1, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> EncodingContract | None:
        """The contract kept in `folder`, or None."""
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        data = read_json(path)
        return cls(**{name: value for name, value in data.items() if name in cls.__dataclass_fields__})

    @classmethod
    def from_config(cls, config: Any, family: str = "embed") -> EncodingContract:
        """From a stage's configuration (the keys of `TextFormat`)."""
        values = {field: getattr(config, name) for name, field in _FORMAT_KEYS.items()}
        return cls(
            family=family,
            base_model=config.base_model,
            revision=config.base_model_revision,
            temperature=getattr(config, "temperature", None),
            **values,
        )

    def under(self, config: Any, command_line: Iterable[str], source: str) -> EncodingContract:
        """This contract, checked against what a person said on the command line.

        Raises:
            PipelineError: a key on the command line contradicts the contract; the message names both sources.
        """
        for name in sorted(set(command_line) & set(_FORMAT_KEYS)):
            said, held = getattr(config, name), getattr(self, _FORMAT_KEYS[name])
            if said != held:
                raise PipelineError(
                    f"{name}={said!r} on the command line contradicts {held!r}, with which {source} was made",
                    fix=f"leave {name} out, or make the model again with the new value",
                )
        return self

    def with_(self, **changes: Any) -> EncodingContract:
        return replace(self, **changes)


def tokenizer_rules_hash(tokenizer: Any) -> str:
    """16 hex digits over the rules and vocabulary of a `tokenizers.Tokenizer`, whatever its truncation and padding."""
    rules = tokenizer.__class__.from_str(tokenizer.to_str())
    rules.no_truncation()
    rules.no_padding()
    return hashlib.sha256(rules.to_str().encode()).hexdigest()[:16]


def contract_of_model(folder: Path) -> EncodingContract | None:
    """The contract a model folder carries: ours, else what its sentence-transformers metadata says, else None."""
    own = EncodingContract.load(folder)
    if own or not (folder / "modules.json").is_file():
        return own
    pooling_file = folder / "1_Pooling" / "config.json"
    pooling = read_json(pooling_file) if pooling_file.is_file() else {}
    mode = pooling.get("pooling_mode") or next(
        (
            name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for name, on in pooling.items()
            if name.startswith("pooling_mode_") and on is True
        ),
        "mean",
    )
    if mode not in _POOLING_OF:
        raise PipelineError(f"{pooling_file}: pooling {mode!r} is not supported", fix="use a mean, cls or last model")
    prompts_file = folder / "config_sentence_transformers.json"
    prompts = (read_json(prompts_file).get("prompts") or {}) if prompts_file.is_file() else {}
    length_file = folder / "sentence_bert_config.json"
    length = (read_json(length_file).get("max_seq_length") if length_file.is_file() else None) or 512
    modules = [module.get("type", "").rsplit(".", 1)[-1] for module in read_json(folder / "modules.json")]
    return EncodingContract(
        base_model=str(folder),
        query_prefix=prompts.get("query") or "",
        passage_prefix=prompts.get("document") or prompts.get("passage") or "",
        query_max_length=length,
        passage_max_length=length,
        pooling=_POOLING_OF[mode],
        normalize="Normalize" in modules,
    )
