"""Write a file so that a reader sees the old or the new one, never half of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError


@contextmanager
def atomic_open(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; on success flush it to disk and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(descriptor, mode, encoding=encoding, newline=None if "b" in mode else "\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    with atomic_open(path) as stream:
        stream.write(text)
    return path


def write_json(path: Path, value: Any, indent: int | None = 2) -> Path:
    """Strict JSON: NaN and infinities are refused, because no other reader accepts them."""
    with atomic_open(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=indent, allow_nan=False)
        stream.write("\n")
    return path


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    with atomic_open(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return path


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to fill; on success it takes the place of `target`, on an error it is removed.

    A folder cannot be replaced in one step: the old one waits under another name for a moment and is put back by the
    next call if the process dies in between. Both names are hidden ones of ours: whoever makes `onnx.old` keeps it.
    """
    temporary, old = (target.with_name(f".{target.name}.pipeline-{ending}") for ending in ("tmp", "old"))
    if old.is_dir() and not target.exists():
        os.replace(old, target)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Parse a JSON file; the error names the file, the line and what is wrong there."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number of 5,000 digits; too deep
        line = getattr(error, "lineno", "?")
        raise PipelineError(f"{path}:{line}: not valid JSON: {getattr(error, 'msg', error)}") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for every line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (ValueError, RecursionError) as error:
                        reason = getattr(error, "msg", error)
                        raise PipelineError(f"{path}:{number}: not valid JSON: {reason}") from error
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
