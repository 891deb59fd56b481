"""What an input was when a stage read it: names, sizes and content hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_SKIPPED_FOLDERS = {"logs", "__pycache__"}

FileRecord = dict[str, Any]
"""{"size": bytes, "mtime_ns": int, "sha256": hex}"""
Snapshot = dict[str, FileRecord]
"""Relative file name -> record. A single file has its own name as the only entry."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record(path: Path, known: FileRecord | None = None) -> FileRecord:
    """The file's record; the hash is taken from `known` when size and time have not moved."""
    stat = path.stat()
    if known and known["size"] == stat.st_size and known["mtime_ns"] == stat.st_mtime_ns:
        return known
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_of(path)}


def snapshot(path: Path, known: Snapshot | None = None) -> Snapshot | None:
    """Everything `path` stands for, or None if it does not exist.

    A stage's folder stands for the outputs its manifest lists, so that logs and journals beside them do not count.
    """
    known = known or {}
    if path.is_file():
        return {path.name: record(path, known.get(path.name))}
    if not path.is_dir():
        return None
    listed = _listed_outputs(path)
    names = sorted(listed) if listed is not None else sorted(_walk(path))
    hints = {**(listed or {}), **known}
    files = (name for name in names if (path / name).is_file())
    return {_writable(name): record(path / name, hints.get(_writable(name))) for name in files}


def differences(before: Snapshot | None, now: Snapshot | None) -> list[str]:
    """Names of files that were added, removed or changed in content."""
    if before is None or now is None:
        return [] if before == now else ["appeared" if before is None else "gone"]
    names = sorted(set(before) | set(now))
    return [name for name in names if before.get(name, {}).get("sha256") != now.get(name, {}).get("sha256")]


def _writable(name: str) -> str:
    """A name that is not UTF-8 could not be written into a manifest."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _listed_outputs(folder: Path) -> Snapshot | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _walk(folder: Path) -> list[str]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        relative = Path(root).relative_to(folder)
        found += [str(relative / name) for name in names if not name.startswith(".")]
    return found
