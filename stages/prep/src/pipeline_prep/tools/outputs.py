"""Where a tool may write."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.errors import PipelineError


def check_output(output: Path, inputs: Iterable[Path], overwrite: bool, how: str = "--overwrite") -> Path:
    """`output` with its links resolved; `how` says what would allow to replace it.

    Raises:
        PipelineError: it is there already and `overwrite` is not set, or writing it would touch one of `inputs`.
    """
    resolved = output.expanduser().resolve()
    for path in inputs:
        given = path.expanduser().resolve()
        if resolved == given or resolved in given.parents or (given.is_dir() and given in resolved.parents):
            raise PipelineError(
                f"the output {output} and the input {path} are one and the same, or one holds the other",
                fix="write to another place",
            )
    empty = resolved.is_dir() and not any(resolved.iterdir())
    if resolved.exists() and not empty and not overwrite:
        raise PipelineError(f"{output} is there already", fix=f"give another name, or {how}")
    return resolved


def check_folder(folder: Path, own: Iterable[str]) -> None:
    """Make sure that replacing a folder deletes nothing but what we would write there.

    Args:
        own: patterns of these files, seen from the folder.

    Raises:
        PipelineError: something else is in the folder, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder} is a file", fix="name a folder")
    patterns = tuple(own)
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    if strange := [name for name in found if not any(fnmatchcase(name, pattern) for pattern in patterns)]:
        raise PipelineError(
            f"{folder} holds {', '.join(strange[:5])}, which --overwrite would delete",
            fix="name another folder, or move these away",
        )
