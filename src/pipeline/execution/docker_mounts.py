"""Which folders of this machine a container sees, and where.

Relative paths of a configuration keep their meaning: the container works in `WORK`, and every path that a stage reads
or writes is there at the same relative place. Absolute paths are there under the same name. What the profile mounts
itself comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.execution.plan import InputState, Plan, PlannedInput
from pipeline.execution.profile import Profile, host_path
from pipeline.execution.tasks import Task
from pipeline.family import STAGES
from pipeline.schemas.fields import keys_of

WORK = "/workspace"
_ONLY_READ = {"corpus_dir"}
"""Folders that a stage reads although no key declares them as an input: they may be absent."""


@dataclass(frozen=True)
class Mount:
    """One folder or file of this machine, and its path in the container."""

    host: Path
    there: str
    read_only: bool = False

    def covers(self, there: str) -> bool:
        return there == self.there or there.startswith(self.there.rstrip("/") + "/")

    def __str__(self) -> str:
        return f"{self.host} -> {self.there}" + (" (read-only)" if self.read_only else "")


def there_of(path: Path | str) -> str:
    """Where a path of a configuration lies in the container."""
    return os.path.normpath(os.path.join(WORK, path))


def mounts_of(tasks: Sequence[Task], profile: Profile) -> list[Mount]:
    """The profile's mounts, then what the tasks write and read beyond them.

    Raises:
        PipelineError: a mount of the profile is not HOST:CONTAINER, or names a variable that is not set; two paths
            would be one in the container; an input has links that lead out of it.
    """
    own = profile_mounts(profile)
    mounts = list(own)
    for task in tasks:
        _add(mounts, own, _written(task.plan), read_only=False)
    for task in tasks:
        _add(mounts, own, map(_whole, [*_read(task.plan), *task.own_files()]), read_only=True)
    for task in tasks:
        for path in _read(task.plan):
            _check_links(path, mounts)
    return mounts


def profile_mounts(profile: Profile) -> list[Mount]:
    """`mounts` of a profile as this machine understands them."""
    return [_parsed(text, profile) for text in profile.mounts]


def host_of(there: str, mounts: Iterable[Mount]) -> Path | None:
    """The path of this machine that the container sees as `there`; None if no mount covers it."""
    nearest = _nearest(there, mounts)
    return nearest and nearest.host / os.path.relpath(there, nearest.there)


def _nearest(there: str, mounts: Iterable[Mount]) -> Mount | None:
    covering = (mount for mount in mounts if mount.covers(there))
    return max(covering, key=lambda mount: len(mount.there), default=None)


def missing_inputs(tasks: Sequence[Task], profile: Profile) -> list[str]:
    """Inputs that a container would not find, as `key: path`."""
    mounts = profile_mounts(profile)
    return [
        f"{item.key}: {_on_host(item.value, mounts)}"
        for task in tasks
        for item in task.plan.inputs
        if _is_expected(item) and not _on_host(item.value, mounts).exists()
    ]


def _is_expected(item: PlannedInput) -> bool:
    by_hand = item.state is InputState.EXISTS and item.made_by not in STAGES
    return item.state is InputState.MISSING or by_hand


def _on_host(path: str, mounts: Iterable[Mount]) -> Path:
    return host_of(there_of(path), mounts) or Path(path)


def _add(mounts: list[Mount], own: Sequence[Mount], paths: Iterable[Path], read_only: bool) -> None:
    """Mount what no mount covers yet. Only the profile's (`own`) may show another folder under a path's name."""
    for path in paths:
        there, here = there_of(path), Path(os.path.abspath(path))
        nearest = _nearest(there, mounts)
        if nearest is None:
            mounts.append(Mount(here, there, read_only))
        elif nearest not in own and host_of(there, [nearest]) != here:
            raise PipelineError(
                f"{path} would be {there} in the container, where {nearest.host} is {nearest.there}",
                fix=f"give an absolute path: {here}",
            )


def _whole(path: Path) -> Path:
    """The folder that has to be mounted for a path: files of a hub snapshot are links to blobs beside it."""
    for folder in path.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith(("models--", "datasets--")):
            return folder.parent
    return path


def _check_links(path: Path, mounts: Sequence[Mount]) -> None:
    folder = host_of(there_of(path), mounts)
    for entry in os.scandir(folder) if folder and folder.is_dir() else ():
        if not entry.is_symlink() or not os.path.exists(entry.path):
            continue
        target = os.path.normpath(os.path.join(there_of(path), os.readlink(entry.path)))
        if _nearest(target, mounts) is None:
            raise PipelineError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which the container does not see",
                fix=f'add mounts = ["{os.path.realpath(entry.path)}:{target}"], or put the file itself there',
            )


def _written(plan: Plan) -> list[Path]:
    """Folders that a stage writes to. One that is replaced as a whole cannot be a mount itself: its parent is."""
    config = plan.resolved.config
    named = [
        Path(getattr(config, name)).expanduser().parent
        for name, item in keys_of(type(config)).items()
        if name.endswith(("_dir", "_path"))
        and name not in _ONLY_READ | {"run_dir", "output_dir"}
        and not item.spec.reads
        and isinstance(getattr(config, name), str)
    ]
    return [Path(config.run_dir), plan.folder, *sorted(named, key=lambda path: len(path.parts))]


def _read(plan: Plan) -> list[Path]:
    config = plan.resolved.config
    inputs = [Path(item.value) for item in plan.inputs if item.state is not InputState.REMOTE]
    further = [Path(value).expanduser() for name in _ONLY_READ if isinstance(value := getattr(config, name, None), str)]
    return [path for path in [*inputs, *further] if path.exists()]


def _parsed(text: str, profile: Profile) -> Mount:
    where = f"profile {profile.name!r}, mounts"
    host, _, rest = text.partition(":")
    there, _, mode = rest.partition(":")
    if not host or not there.startswith("/") or mode not in ("", "ro", "rw"):
        raise PipelineError(
            f"{where}: {text!r} is not HOST:CONTAINER", fix='write "./data:/workspace/data", with :ro for reading alone'
        )
    return Mount(host_path(host, where), os.path.normpath(there), mode == "ro")
