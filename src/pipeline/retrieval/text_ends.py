"""Whether every text begins and ends with the tokenizer's special tokens."""

from __future__ import annotations

from typing import Any

from pipeline.errors import PipelineError


def set_text_ends(tokenizer: Any, bos: bool | None, eos: bool | None) -> None:
    """Make a fast tokenizer put its first and last token around a text, or not; None leaves an end as it is.

    BERT's [CLS] and [SEP] count as first and last token.

    Raises:
        PipelineError: a token is asked for that the tokenizer does not have, or the tokenizer is a slow one.
    """
    if bos is None and eos is None:
        return
    first, last = tokenizer.bos_token or tokenizer.cls_token, tokenizer.eos_token or tokenizer.sep_token
    ids = tokenizer("a")["input_ids"]
    begins = first is not None and ids[0] == tokenizer.convert_tokens_to_ids(first)
    ends = last is not None and len(ids) > 1 and ids[-1] == tokenizer.convert_tokens_to_ids(last)
    bos, eos = begins if bos is None else bos, ends if eos is None else eos
    if (bos, eos) == (begins, ends):
        return
    for name, wanted, token in (("add_bos_token", bos, first), ("add_eos_token", eos, last)):
        if wanted and token is None:
            raise PipelineError(f"{name}=true, but the tokenizer has no such token", fix=f"set {name}=null")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PipelineError("add_bos_token and add_eos_token need a fast tokenizer", fix="leave both out")
    from tokenizers.processors import TemplateProcessing

    around = [token for token, wanted in ((first, bos), (last, eos)) if wanted]
    backend.post_processor = TemplateProcessing(
        single=" ".join([*([first] if bos else []), "$A", *([last] if eos else [])]),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in around],
    )
