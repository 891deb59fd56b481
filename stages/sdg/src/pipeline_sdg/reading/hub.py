"""Data sets on the Hugging Face hub as a corpus: `hf://org/dataset[@revision][/subdir]`."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import PipelineError

SCHEME = "hf://"
_PLACE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.*))?")


def local_folder(corpus_dir: str) -> Path:
    """The folder of a corpus: the path itself, or where the hub's files were put (only those under `subdir`).

    Raises:
        PipelineError: it is no folder, the address is malformed, or the hub cannot be read.
    """
    if corpus_dir.startswith(SCHEME):
        return _downloaded(corpus_dir)
    if "://" in corpus_dir:
        raise PipelineError(
            f"corpus_dir={corpus_dir}: such addresses cannot be read",
            fix="name a folder, or hf://org/dataset[@revision][/subdir]",
        )
    folder = Path(corpus_dir).expanduser()
    if not folder.is_dir():
        raise PipelineError(f"corpus_dir: {folder} is not a folder", fix="set corpus_dir=PATH to your documents")
    return folder


def _downloaded(place: str) -> Path:
    found = _PLACE.fullmatch(place.rstrip("/"))
    subdir = (found.group(3) or "").strip("/") if found else ""
    if not found or ".." in subdir.split("/"):
        raise PipelineError(f"corpus_dir={place}: not a data set", fix="write hf://org/dataset[@revision][/subdir]")
    name, revision = found.group(1), found.group(2)
    try:
        import huggingface_hub

        snapshot = huggingface_hub.snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=f"{subdir}/**" if subdir else None
        )
    except Exception as error:  # the library and the network under it have no common class of errors
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise PipelineError(
            f"cannot read {place}: {type(error).__name__}: {said}",
            fix="check the name, the network, HF_TOKEN and HF_HUB_OFFLINE; or download the files and name their folder",
        ) from error
    folder = Path(snapshot) / subdir
    if not folder.is_dir():
        raise PipelineError(f"{place}: the data set has no folder {subdir!r}", fix="check the part after the name")
    return folder
