"""The files that make sentence-transformers give this pipeline's vectors and scores.

Where an older version knows the part too, names and keys are the long-standing ones, which old and new versions read.
The library knows one length: of a bi-encoder the longer of the two, so that it never cuts a text that the model was
trained to read whole.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.pair_text import PairTokenizer, special_tokens
from pipeline.retrieval.encoder import QUERY_FOLDER
from pipeline.retrieval.rerank_head import HEAD_FOLDER
from pipeline.run.files import write_json

logger = logging.getLogger("pipeline")

IDENTITY = "torch.nn.modules.linear.Identity"
_MODULES = "sentence_transformers.models"
_TOKEN_MASK = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
_POOLING_FLAGS = {"avg": "mean_tokens", "weighted_avg": "weightedmean_tokens", "cls": "cls_token", "last": "lasttoken"}
_TEMPLATE_FILE = "chat_template.jinja"
_PROBE = ("What stops?", "The pump.")
_SETTINGS = "config_sentence_transformers.json"


def write_bi_encoder(contract: EncodingContract, folder: Path) -> None:
    """For `SentenceTransformer(folder)`; with pooling "colbert" for `MultiVectorEncoder(folder)` (version 6).

    Two encoders load as one model whose `encode_query` and `encode_document` take the right one (version 5).
    """
    late = contract.pooling == "colbert"
    transformer = f"{_MODULES}.Transformer"
    modules = [("", transformer if contract.share_encoder else f"{_MODULES}.Router")]
    modules.append(("1_MultiVectorMask", _TOKEN_MASK) if late else ("1_Pooling", f"{_MODULES}.Pooling"))
    if contract.normalize:
        modules.append(("2_Normalize", f"{_MODULES}.Normalize"))
    _write_modules(modules, folder)
    if late:
        write_json(folder / "1_MultiVectorMask" / "config.json", {"skiplist_words": []})
    else:
        _write_pooling(contract, folder)
    if contract.normalize and late:
        write_json(folder / "2_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    settings: dict[str, Any] = {
        "prompts": {"query": contract.query_prefix, "document": contract.passage_prefix},
        "default_prompt_name": None,
        "similarity_fn_name": ("cosine" if contract.normalize else "dot") if not late else "maxsim",
    }
    write_json(folder / _SETTINGS, settings | ({"model_type": "MultiVectorEncoder"} if late else {}))
    length = {
        "max_seq_length": max(contract.query_max_length, contract.passage_max_length),
        "do_lower_case": False,
    }
    write_json(folder / "sentence_bert_config.json", length)
    if not contract.share_encoder:
        write_json(folder / QUERY_FOLDER / "sentence_bert_config.json", length)
        write_json(
            folder / "router_config.json",
            {
                "types": {QUERY_FOLDER: transformer, ".": transformer},
                "structure": {"query": [QUERY_FOLDER], "document": ["."]},
                "parameters": {"default_route": "document", "allow_empty_key": True},
            },
        )


def write_cross_encoder(contract: EncodingContract, tokenizer: Any, folder: Path, *, with_head: bool) -> None:
    """For `CrossEncoder(folder)` (version 6): logits out, pairs read in the contract's form.

    A prompt template becomes a chat template over the roles "query" and "document". The library cuts a pair's end
    and puts the template's own end back, so that it agrees with this pipeline unless a query had to be cut.
    """
    output = "last_hidden_state" if with_head else "logits"
    reads: dict[str, Any] = {"method": "forward", "method_output_name": output}
    modalities = {"text": reads}
    if contract.prompt_template is not None:
        modalities["message"] = {**reads, "format": "flat"}
        (folder / _TEMPLATE_FILE).write_text(pair_chat_template(contract, tokenizer), encoding="utf-8")
        _warn_if_read_otherwise(contract, tokenizer)
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction" if with_head else "sequence-classification",
            "modality_config": modalities,
            "module_output_name": "token_embeddings" if with_head else "scores",
            "max_seq_length": contract.max_length("pair"),
        },
    )
    modules = [("", f"{_MODULES}.Transformer")]
    if with_head:
        modules += [("1_Pooling", f"{_MODULES}.Pooling"), (HEAD_FOLDER, f"{_MODULES}.Dense")]
        _write_pooling(contract, folder)
        write_json(
            folder / HEAD_FOLDER / "config.json",
            {
                "in_features": contract.dimension,
                "out_features": 1,
                "bias": True,
                "activation_function": IDENTITY,
                "module_input_name": "sentence_embedding",
                "module_output_name": "scores",
            },
        )
    _write_modules(modules, folder)
    write_json(folder / _SETTINGS, {"model_type": "CrossEncoder", "prompts": {}, "activation_fn": IDENTITY})


def pair_chat_template(contract: EncodingContract, tokenizer: Any) -> str:
    """The contract's template as Jinja, with the tokenizer's special tokens written out (a chat template adds none)."""
    opening, closing = special_tokens(tokenizer)
    roles = {"{query}": "query", "{passage}": "document"}
    parts = ["".join(tokenizer.convert_ids_to_tokens(opening)), *contract.template_parts()]
    parts.append("".join(tokenizer.convert_ids_to_tokens(closing)))
    return "".join(_content_of(roles[part]) if part in roles else _literal(part) for part in parts)


def _warn_if_read_otherwise(contract: EncodingContract, tokenizer: Any) -> None:
    """Some tokenizers read a text differently after a special token that is written out."""
    opening, closing = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in special_tokens(tokenizer))
    text = contract.format_pair(*_PROBE)
    pairs = PairTokenizer(tokenizer, contract)
    if (
        tokenizer(opening + text + closing, add_special_tokens=False)["input_ids"]
        != pairs([_PROBE[0]], [_PROBE[1]])[0][0]
    ):
        logger.warning(
            "sentence-transformers will read the pairs of this model with other tokens than it was trained "
            "with: this tokenizer treats a text after a written special token differently"
        )


def _content_of(role: str) -> str:
    return f"{{{{ (messages | selectattr('role', 'equalto', '{role}') | first)['content'] }}}}"


def _literal(text: str) -> str:
    """`text` as a Jinja string; empty for nothing."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'{{{{ "{escaped}" }}}}' if text else ""


def _write_modules(modules: list[tuple[str, str]], folder: Path) -> None:
    write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    for path, _ in modules[1:]:
        (folder / path).mkdir(exist_ok=True)


def _write_pooling(contract: EncodingContract, folder: Path) -> None:
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": contract.dimension,
            **{f"pooling_mode_{flag}": mode == contract.pooling for mode, flag in _POOLING_FLAGS.items()},
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": True,
        },
    )
