"""Options and overrides may stand anywhere: what comes before the subcommand is moved behind it."""

from __future__ import annotations

_WITH_VALUE = {"-c", "--config", "-r", "--run", "-b", "--batch", "--from", "--to"}
_FLAGS = {"-d", "--dry-run", "--stage", "-v", "--verbose", "--force"}


def hoist(argv: list[str]) -> list[str]:
    """`-c demo embed sdg` -> `embed sdg -c demo`, so that one command declares its options once."""
    words: list[str] = []
    moved: list[str] = []
    index = 0
    while index < len(argv) and len(words) < 2:
        token = argv[index]
        name = token.partition("=")[0]
        if token in _WITH_VALUE and index + 1 < len(argv):
            moved += [token, argv[index + 1]]
            index += 1
        elif name in _WITH_VALUE or token in _FLAGS or ("=" in token and not token.startswith("-")):
            moved.append(token)
        else:
            words.append(token)
        index += 1
    return [*words, *argv[index:], *moved] if len(words) == 2 else argv
