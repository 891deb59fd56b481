"""Our own code as the far side needs it: the files of this checkout, packed once for each content."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PipelineError

_SKIPPED = frozenset({".git", ".venv", ".venvs", "output", "dist", "__pycache__", "wandb", "node_modules"})
"""Folders that are no source, for a checkout without git."""
_DOCUMENTS = Path("data/corpus")
"""Here a person puts documents of their own."""
_LARGEST = 200 * 2**20
"""Bytes of a checkout that is still code, and no data that somebody put there."""


def source_files(root: Path) -> list[Path]:
    """The files of a checkout relative to `root`, sorted: what git tracks and what it does not ignore.

    Raises:
        PipelineError: git does not list them, or they are too large to be code.
    """
    listed = _git_files(root) if (root / ".git").exists() else _walked(root)
    files = sorted(name for name in listed if is_code(name))
    sizes = {name: (root / name).lstat().st_size for name in files}
    if sum(sizes.values()) > _LARGEST:
        biggest = max(sizes, key=lambda name: sizes[name])
        raise PipelineError(
            f"{root} holds {sum(sizes.values()) / 2**20:,.0f} MB, too much to be sent as code; largest: {biggest}",
            fix="move data out of the checkout, or add it to .gitignore",
        )
    return files


def is_code(name: Path) -> bool:
    """Whether a file of the checkout (a relative path) may travel with it."""
    has_keys = name == Path("env.toml") or any(part.startswith(".env") for part in name.parts)
    return not has_keys and _DOCUMENTS not in name.parents


def _git_files(root: Path) -> list[Path]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:  # a walk would send what .gitignore keeps back
        said = getattr(error, "stderr", None)
        raise PipelineError(
            f"git does not list the files of {root}: {os.fsdecode(said).strip() if said else error}",
            fix=f"make `git -C {root} status` work; for another user's checkout: git config --global --add "
            f"safe.directory {root}",
        ) from error
    names = {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}
    return [name for name in names if (root / name).is_symlink() or (root / name).is_file()]


def content_hash(root: Path, files: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with any file's path, content or right to be run."""
    digest = hashlib.sha256()
    for name in files:
        path = root / name
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        head = f"{name}\0{int(os.access(path, os.X_OK))}\0{len(content)}\0"
        digest.update(head.encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()[:16]


def packed_files(root: Path, files: Iterable[Path]) -> bytes:
    """A compressed tar of files below `root`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name in files:
            archive.add(root / name, arcname=str(name), recursive=False)
    return stream.getvalue()


def packed_texts(files: dict[str, str]) -> bytes:
    """A compressed tar of texts by their path; those that end in .sh may be run."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name, text in files.items():
            content = text.encode("utf-8")
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _walked(root: Path) -> Iterable[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _SKIPPED and not name.endswith((".egg-info", "_cache"))]
        yield from (Path(folder, name).relative_to(root) for name in names)
