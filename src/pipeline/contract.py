"""How a text becomes a vector or a score: one object, kept beside the weights, used by every stage and the server.

Most serving bugs of this field are a prefix, pooling, normalisation or length that differs between training and use.
This module is free of torch: the ONNX server imports it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, write_json

FILE_NAME = "encoding_contract.json"
_POOLING_OF = {"mean": "avg", "weightedmean": "weighted_avg", "cls": "cls", "lasttoken": "last"}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize", "MultiVectorMask")
_FORMAT_KEYS = {
    "embed": {
        "query_prefix": "query_prefix",
        "passage_prefix": "passage_prefix",
        "query_max_length": "query_max_length",
        "passage_max_length": "passage_max_length",
        "pooling": "pooling",
        "l2_normalize": "normalize",
    },
    "rerank": {
        "prompt_template": "prompt_template",
        "rerank_max_length": "rerank_max_length",
        "pooling": "pooling",
    },
}
"""Family -> configuration key -> contract field."""
_LATER_FIELDS = ("rerank_max_length", "share_encoder")
"""Fields that older contracts do not have. At their defaults they leave the digest as it was."""


@dataclass(frozen=True)
class EncodingContract:
    """Everything that must be equal between training and use of one model.

    `query_prefix` and `passage_prefix` are put before the text verbatim. `prompt_template` is the text of a
    reranker's pair; None is the tokenizer's own form for two texts. Lengths are in tokens and include special tokens.
    `dimension`, `dtype` and `tokenizer_hash` describe the weights and are filled in by whoever saves them.
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
    rerank_max_length: int | None = None
    share_encoder: bool = True

    def format_query(self, text: str) -> str:
        return self.query_prefix + text

    def format_passage(self, text: str, title: str = "") -> str:
        return self.passage_prefix + (f"{title} {text}" if title else text)

    def format_pair(self, query: str, passage: str) -> str:
        """The pair as one text. `passage` is formatted already; braces in either text are plain characters.

        Raises:
            PipelineError: this contract has no template (the tokenizer joins the two texts).
        """
        values = {"{query}": query, "{passage}": passage}
        return "".join(values.get(part, part) for part in self.template_parts())

    def template_parts(self) -> list[str]:
        """The template cut into five: text, a name in braces, text, the other name in braces, text.

        Raises:
            PipelineError: no template, or one that does not name query and passage once each.
        """
        parts = re.split(r"(\{query\}|\{passage\})", self.prompt_template or "")
        if sorted(parts[1::2]) != ["{passage}", "{query}"]:
            raise PipelineError(
                f"prompt_template={self.prompt_template!r} does not name {{query}} and {{passage}} once each",
                fix="use for example 'question:{query} \\n \\n passage:{passage}'",
            )
        return parts

    def max_length(self, kind: str) -> int:
        """Longest input in tokens for `kind` "query", "passage" or "pair"."""
        if kind == "pair":
            return self.rerank_max_length or self.passage_max_length
        return self.query_max_length if kind == "query" else self.passage_max_length

    def digest(self) -> str:
        """16 hex digits that change when anything that moves a vector changes (temperature does not)."""
        values = {name: value for name, value in asdict(self).items() if name != "temperature"}
        for field in fields(self):
            if field.name in _LATER_FIELDS and values[field.name] == field.default:
                del values[field.name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a file made with this contract says of it, by the names of the configuration's keys."""
        told = {name: getattr(self, field) for name, field in _FORMAT_KEYS[self.family].items()}
        return {**told, "dtype": self.dtype, "contract": self.digest()}

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
        """From a stage's configuration: the keys of `TextFormat` for "embed", those of a reranker for "rerank"."""
        values = {field: getattr(config, name) for name, field in _FORMAT_KEYS[family].items()}
        if family == "embed":
            values["share_encoder"] = getattr(config, "share_encoder", True)
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
        keys = _FORMAT_KEYS[self.family]
        for name in sorted(set(command_line) & set(keys)):
            said, held = getattr(config, name), getattr(self, keys[name])
            if said != held:
                raise PipelineError(
                    f"{name}={said!r} on the command line contradicts {held!r}, with which {source} was made",
                    fix=f"leave {name} out, or make the model again with the new value",
                )
        return self

    def need_one_vector(self, model: str) -> EncodingContract:
        """This contract, if a text is one vector under it.

        Raises:
            PipelineError: pooling "colbert" gives one for every token, which only training can use so far.
        """
        if self.pooling == "colbert":
            raise PipelineError(
                f"{model} gives a vector for every token (pooling=colbert); searching with those is not built yet",
                fix="load it in sentence-transformers' MultiVectorEncoder, or train with another pooling",
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
    """The contract a model folder carries: ours, else what its sentence-transformers metadata says, else None.

    Raises:
        PipelineError: the metadata names a part or a pooling that this pipeline does not have.
    """
    own = EncodingContract.load(folder)
    if own or not (folder / "modules.json").is_file():
        return own
    modules = [module.get("type", "").rsplit(".", 1)[-1] for module in read_json(folder / "modules.json")]
    settings = _optional_json(folder / "config_sentence_transformers.json")
    length = _optional_json(folder / "sentence_bert_config.json").get("max_seq_length") or 512
    if settings.get("model_type") == "CrossEncoder":
        pooling = _pooling_of(folder) if "Pooling" in modules else "avg"
        return EncodingContract("rerank", str(folder), pooling=pooling, rerank_max_length=length)
    unknown = [name for name in modules if name not in _KNOWN_MODULES]
    if unknown:
        raise PipelineError(
            f"{folder / 'modules.json'}: a {unknown[0]} module is not supported",
            fix=f"use a model made of {', '.join(_KNOWN_MODULES)} alone",
        )
    prompts = settings.get("prompts") or {}
    return EncodingContract(
        base_model=str(folder),
        query_prefix=prompts.get("query") or "",
        passage_prefix=prompts.get("document") or prompts.get("passage") or "",
        query_max_length=length,
        passage_max_length=length,
        pooling="colbert" if "MultiVectorMask" in modules else _pooling_of(folder),
        normalize="Normalize" in modules,
    )


def _pooling_of(folder: Path) -> str:
    """The pooling that `1_Pooling/config.json` names, in its older form (a flag for each) or its newer one."""
    path = folder / "1_Pooling" / "config.json"
    settings = _optional_json(path)
    flags = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    first = flags[0].removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") if flags else "mean"
    mode = settings.get("pooling_mode") or first
    if len(flags) > 1 or mode not in list(_POOLING_OF):
        raise PipelineError(
            f"{path}: pooling {' + '.join(flags) or mode!r} is not supported",
            fix=f"use a model with one of: {', '.join(_POOLING_OF)}",
        )
    return _POOLING_OF[mode]


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
