"""From a profile and tasks to Slurm jobs: folders, options, environment and the files each job is given."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from pipeline.config import is_file_name
from pipeline.errors import PipelineError
from pipeline.execution.checkout import is_code
from pipeline.execution.environment import environment_for
from pipeline.execution.own_values import settled
from pipeline.execution.plan import InputState, PlannedInput
from pipeline.execution.profile import Profile, expand
from pipeline.execution.slurm_script import Job, Options, Places, run_script, sbatch_script
from pipeline.execution.tasks import Task
from pipeline.home import workspace
from pipeline.run.log import new_stamp
from pipeline.schemas.fields import keys_of

MULTI_NODE_STAGES = frozenset({"finetune"})
"""Stages whose processes may be spread over several nodes; any other would do the same work once on each."""
_PLAIN_PATH = re.compile(r"/[^\s'\"\\$%`]*")


def places_of(profile: Profile, tasks: Sequence[Task], code: str) -> Places:
    """Where things lie on the far side; `code` is the hash of the checkout.

    Raises:
        PipelineError: the profile names no shared folder and something needs one, or a path that cannot be one.
    """
    variables = profile.environment()
    state = profile.remote_job_dir or variables.get("NEMO_RUN_DIR")
    work = variables.get("NEMO_RUN_DIR") or state
    if not state or not work:
        _refuse_without_folder(profile, tasks)
        work, state = str(Path.cwd()), str(Path.cwd() / "output" / "slurm")
    for key, path in (("remote_job_dir", state), ("env_vars.NEMO_RUN_DIR", work)):
        if not _PLAIN_PATH.fullmatch(path):
            raise PipelineError(
                f"profile {profile.name!r}: {key} = {path!r}",
                fix="give an absolute path without spaces, quotes, $ and %",
            )
    state, work = state.rstrip("/"), work.rstrip("/")
    return Places(state, work, f"{state}/code/{code}")


def jobs_of(
    profile: Profile, tasks: Sequence[Task], places: Places, detached: bool, uv: str, secret_files: bool = True
) -> list[Job]:
    """One job for each task. With `secret_files` those that have secrets read them from a file of their own."""
    tag = f"{new_stamp()}-{uuid4().hex[:4]}"
    jobs = []
    for task in tasks:
        environment = environment_for([task], profile)
        folder = f"{places.state}/{task.name}-{tag}"
        has_secrets = secret_files and environment.secret
        jobs.append(
            Job(
                name=task.name,
                stage=task.stage,
                folder=folder,
                arguments=_far_task(task, profile, folder, places).arguments,
                places=places,
                uv=uv,
                environment=environment.plain,
                secret_file=f"{folder}/.secrets.env" if has_secrets else None,
                options=_options(profile, detached),
                nodes=profile.nodes if task.stage in MULTI_NODE_STAGES else 1,
                cpus_per_task=profile.cpus_per_task,
                startup_commands=profile.startup_commands,
                image=profile.image_of(task.stage),
                mounts=_mounts(profile, places, uv),
            )
        )
    return jobs


def files_of(job: Job, task: Task) -> dict[str, str]:
    """The files of a job's folder, by their path below `places.state`: scripts, and the person's configuration."""
    name = Path(job.folder).name
    files = {f"{name}/run.sh": run_script(job), f"{name}/job.sbatch": sbatch_script(job), f"{name}/logs/.keep": ""}
    own = task.own_files()
    base = _common_folder(own)
    return files | {f"{name}/config/{path.resolve().relative_to(base)}": path.read_text("utf-8") for path in own}


def needed_inputs(tasks: Sequence[Task]) -> list[PlannedInput]:
    """Every input that has to lie on the far side before the first job starts.

    Relative paths are those of the working directory there. What an earlier task makes is not asked for, nor what
    comes with the code.
    """
    needed: dict[str, PlannedInput] = {}
    made: set[str] = set()
    for task in tasks:
        resolved = task.plan.resolved
        specs = keys_of(type(resolved.config))
        for item in task.plan.inputs:
            comes = item.state in (InputState.REMOTE, InputState.OPTIONAL) or specs[item.key].spec.optional_input
            shipped = item.key not in resolved.command_line and _travels(Path(item.value))
            if not comes and not shipped and item.made_by not in made:
                needed[item.value] = item
        made.add(task.stage)
    return list(needed.values())


def _refuse_without_folder(profile: Profile, tasks: Sequence[Task]) -> None:
    reasons = {
        "the stages of `run` share their outputs": len(tasks) > 1,
        "code and logs have to lie where login and compute nodes see them": bool(profile.tunnel),
        "secrets are handed over in a file of its own": bool(environment_for(tasks, profile).secret),
    }
    for reason, holds in reasons.items():
        if holds:
            raise PipelineError(
                f"profile {profile.name!r} has neither remote_job_dir nor env_vars.NEMO_RUN_DIR: {reason}",
                fix='set remote_job_dir = "/shared/path/to/jobs", a folder that all nodes see',
            )


def _options(profile: Profile, detached: bool) -> Options:
    return {
        "account": profile.account,
        "partition": profile.partition_for(detached),
        "qos": profile.qos,
        "time": profile.time,
        "gpus-per-node": profile.gpus_per_node,
        "mem": profile.mem,
        "exclusive": profile.exclusive,
    }


def _mounts(profile: Profile, places: Places, uv: str) -> list[str]:
    """Mounts of a container; a relative folder is one of the working directory. The uv command comes along."""
    given = [("mounts", text) for text in profile.mounts]
    given += [("lustre_mount", profile.lustre_mount)] if profile.lustre_mount else []
    mounts = [_mount(f"profile {profile.name!r}, {key}", text, places) for key, text in given]
    return [*mounts, *([f"{uv}:{uv}"] if uv.startswith("/") else [])]


def _mount(where: str, text: str, places: Places) -> str:
    host, colon, there = text.partition(":")
    if host.startswith("~"):
        raise PipelineError(
            f"{where}: {text!r}: ~ is the home of this machine, not the cluster's",
            fix="give the folder's absolute path on the cluster",
        )
    return os.path.normpath(os.path.join(places.work, expand(host, where))) + colon + there


def _far_task(task: Task, profile: Profile, folder: str, places: Places) -> Task:
    """The task as it is given there: a configuration file of the person's own lies with the job."""
    there = settled(task, profile).there(places.code)
    if there.config != task.config or not is_file_name(task.config):
        return there
    inner = Path(task.config).resolve().relative_to(_common_folder(task.own_files()))
    return replace(there, config=f"{folder}/config/{inner}")


def _travels(path: Path) -> bool:
    """Whether a path comes with the checkout."""
    return workspace() in path.parents and is_code(path.relative_to(workspace()))


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve().parent for path in files])) if files else Path()
