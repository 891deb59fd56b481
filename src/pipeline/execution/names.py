"""Names of environment variables: which of them a shell can set, and which hold, by their name, a secret."""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"API_?KEY|(KEY|TOKEN)(_|$)|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
"""TOKENIZERS_PARALLELISM and MAX_TOKENS are no secrets."""


def is_variable(name: str) -> bool:
    """Whether a shell can set a variable of this name; it would print the whole line of any other."""
    return bool(_VARIABLE.fullmatch(name))


def looks_secret(name: str) -> bool:
    """Whether a variable of this name holds something that must not be written or shown."""
    return bool(_SECRET.search(name))
