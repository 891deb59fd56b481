"""Tokens: counted with a tokenizer file, or guessed from the letters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline_sdg.chunking.pieces import UNSPACED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDED_TOKENIZER = "embedded:all-MiniLM-L6-v2"
_LETTERS_OF_A_TOKEN = 4
_LONGEST_TOKEN = 24
"""Letters. A longer "token" is what the vocabulary does not know (a run of Thai, a blob): it counts as several."""
_REMEMBERED = 256
_LAST_LATIN = "\u02ff"
_WORD = re.compile(r"\S+")


class TokenCounter:
    """Counts the tokens of a text and finds where to cut it. Offline: the tokenizer is a file."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.count = lru_cache(_REMEMBERED)(self._count)
        """How many tokens a text has."""

    def starts(self, text: str) -> list[int]:
        """Where each token begins, in characters."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        found: list[int] = []
        for start, end in encoding.offsets:
            size = end - start
            step = size if size <= _LONGEST_TOKEN else _LETTERS_OF_A_TOKEN
            found += range(start, end, step) if size else ()
        return found

    def _count(self, text: str) -> int:
        if max(map(len, text.split()), default=0) > _LONGEST_TOKEN:
            return len(self.starts(text))
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def cut(self, text: str, most: int) -> Iterator[str]:
        """The text in parts of at most `most` tokens, cut between words; a longer word is cut between tokens."""
        starts = self.starts(text)
        borders = {found.start() for found in _WORD.finditer(text)}
        cuts, last = [0], 0
        while last + most < len(starts):
            at = last + most
            while at > last and starts[at] not in borders:
                at -= 1
            last = at if at > last else last + most
            cuts.append(starts[last])
        for start, end in pairwise([*cuts, len(text)]):
            part = text[start:end].strip()
            if part and len(part) < len(text) and self.count(part) > most:
                yield from self.cut(part, most)  # half of an unknown word may be known, in many tokens
            elif part:
                yield part


@cache
def token_counter(path: str | None) -> TokenCounter:
    """The counter of a `tokenizer.json` (or the folder it is in); None: that of the embedded MiniLM.

    Raises:
        PipelineError: there is no such file, or it is no tokenizer.
    """
    from tokenizers import Tokenizer

    place = Path(path or resolve_model(EMBEDDED_TOKENIZER)).expanduser()
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        raise PipelineError(
            f"chunk_tokenizer: {file} does not exist", fix="name a tokenizer.json, or leave chunk_tokenizer=null"
        )
    try:
        return TokenCounter(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library has no class of its own for a file that is wrong
        raise PipelineError(f"chunk_tokenizer: {file} is not a tokenizer: {error}") from error


def estimated_tokens(text: str) -> int:
    """About as many tokens as a large model sees. It needs no tokenizer, as every model has another one.

    Four Latin letters make a token, two of other alphabets, one of a script without spaces.
    """
    if text.isascii():
        return -(-len(text) // _LETTERS_OF_A_TOKEN)
    unspaced = len(UNSPACED.findall(text))
    other = sum(character > _LAST_LATIN for character in text) - unspaced
    return unspaced + -(-other // 2) + -(-(len(text) - unspaced - other) // _LETTERS_OF_A_TOKEN)
