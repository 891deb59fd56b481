"""The two files of a Slurm job: `run.sh`, which runs a stage, and `job.sbatch`, which asks for nodes and starts it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from pipeline.execution.profile import image_folder
from pipeline.execution.tasks import far_command

Options = dict[str, str | int | bool | None]


@dataclass(frozen=True)
class Places:
    """Folders on the far side, all on a file system that its nodes share."""

    state: str
    """Code, jobs, downloads and secrets (`remote_job_dir`)."""
    work: str
    """Working directory of every stage: `./output` lies here."""
    code: str


@dataclass(frozen=True)
class Job:
    """One stage as a Slurm job. All paths are those of the far side."""

    name: str
    stage: str
    folder: str
    arguments: list[str]
    places: Places
    uv: str = "uv"
    environment: dict[str, str] = field(default_factory=dict)
    secret_file: str | None = None
    options: Options = field(default_factory=dict)
    """Options of sbatch by their long names; True stands alone, what is empty is left out."""
    nodes: int = 1
    cpus_per_task: int | None = None
    startup_commands: list[str] = field(default_factory=list)
    image: str | None = None
    mounts: list[str] = field(default_factory=list)

    @property
    def stdout(self) -> str:
        return f"{self.folder}/logs/stdout.txt"

    @property
    def stderr(self) -> str:
        return f"{self.folder}/logs/stderr.txt"

    @property
    def exit_file(self) -> str:
        """The job writes its exit code here at its end: not every cluster keeps accounts of finished jobs."""
        return f"{self.folder}/exit_code"


def run_script(job: Job) -> str:
    """`run.sh`: the stage in its environment. A person may start it too, on any node."""
    places = job.places
    code = shlex.quote(places.code)
    environments = f"{places.code}/.venvs/{image_folder(job.image)}"
    lines = [
        "#!/bin/bash",
        "# ./run.sh runs the stage here; ./run.sh --only-environments installs what it needs, where there is internet.",
        "set -eo pipefail",
        "unset VIRTUAL_ENV",
        f"export PIPELINE_HOME={code} NEMO_RUN_DIR={shlex.quote(places.work)}",
        f"export PIPELINE_ENV_DIR={environments} UV_PROJECT_ENVIRONMENT={environments}/cli",
        f"export UV_PYTHON_INSTALL_DIR={places.state}/python",
        # Made in the image or before it is started: an image's own Python would be in only one of the two.
        *(['export UV_PYTHON_PREFERENCE="${UV_PYTHON_PREFERENCE:-only-managed}"'] if job.image else []),
        f'export HF_HOME="${{HF_HOME:-{places.state}/hf}}" UV_CACHE_DIR="${{UV_CACHE_DIR:-{places.state}/uv-cache}}"',
        *(f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()),
        f"cd {shlex.quote(places.work)}",
        *job.startup_commands,
        'if [ "${1:-}" = --only-environments ]; then',
        f"  {job.uv} sync --project {code} --frozen --no-dev --inexact",
        f'  UV_PROJECT_ENVIRONMENT="$PIPELINE_ENV_DIR/{job.stage}" \\',
        f"    {job.uv} sync --project {code} --frozen --no-dev --inexact --package pipeline-{job.stage}",
        "  exit",
        "fi",
        f"exec {shlex.join(far_command(job.arguments, places.code, job.uv))}",
    ]
    return "\n".join(lines) + "\n"


def sbatch_script(job: Job) -> str:
    """`job.sbatch`: directives, then the secrets (read once, then deleted), then `run.sh` as a step on every node."""
    exit_file = shlex.quote(job.exit_file)
    lines = [
        "#!/bin/bash",
        *_directives(job),
        f"leave() {{ code=$?; echo $code > {exit_file}.tmp && mv {exit_file}.tmp {exit_file}; }}",
        "trap leave EXIT; trap 'exit 143' TERM",  # else a cancelled job would leave the code of the line before
        "set -eo pipefail",
        f"rm -f {exit_file}",
        *_secret_lines(job.secret_file),
    ]
    if job.nodes > 1:
        lines += [
            "# The processes of all nodes meet at the first one. Its environments are made before they all look.",
            "export PIPELINE_NODES=$SLURM_JOB_NUM_NODES PIPELINE_RENDEZVOUS_ID=$SLURM_JOB_ID",
            'export PIPELINE_RENDEZVOUS="$(hostname):$((20000 + SLURM_JOB_ID % 10000))"',
            shlex.join([*_srun(job, 1), f"{job.folder}/run.sh", "--only-environments"]),
        ]
    lines.append(shlex.join([*_srun(job, job.nodes), f"{job.folder}/run.sh"]))
    return "\n".join(lines) + "\n"


def cleanup_script(files: list[str], options: Options) -> str:
    """A small job that deletes the secrets of jobs that never came to read them."""
    limits: Options = {"job-name": "pipeline-cleanup", "output": "/dev/null", "time": "00:05:00", "ntasks": 1}
    limits |= {name: options.get(name) for name in ("account", "partition", "qos", "gpus-per-node", "mem")}
    lines = ["#!/bin/bash", *_sbatch_lines(limits), "rm -f " + shlex.join(files)]
    return "\n".join(lines) + "\n"


def _directives(job: Job) -> list[str]:
    always: Options = {
        "job-name": job.name,
        "output": job.stdout,
        "error": job.stderr,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus_per_task,
        "kill-on-invalid-dep": "yes",
        "no-requeue": True,  # a second start would find its secrets deleted, and the attached side a stale exit code
    }
    return _sbatch_lines(always | job.options)


def _sbatch_lines(options: Options) -> list[str]:
    given = {name: value for name, value in options.items() if value not in (None, False, "")}
    return [f"#SBATCH --{name}" + ("" if value is True else f"={value}") for name, value in given.items()]


def _secret_lines(file: str | None) -> list[str]:
    if not file:
        return []
    path = shlex.quote(file)
    return [f"if [ -f {path} ]; then {{ set +x; }} 2>/dev/null; set -a; . {path}; set +a; rm -f {path}; fi"]


def _srun(job: Job, nodes: int) -> list[str]:
    """One task on each node. Without cpus_per_task the task may use every core that the job has."""
    cores = f"--cpus-per-task={job.cpus_per_task}" if job.cpus_per_task else "--cpu-bind=none"
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", cores]
    command += ["--kill-on-bad-exit=1", "--export=ALL"]  # secrets reach the step through the environment
    if not job.image:
        return [*command, f"--chdir={job.places.work}"]
    mounts = ",".join([*job.mounts, f"{job.places.state}:{job.places.state}", f"{job.places.work}:{job.places.work}"])
    image = f"--container-image={enroot_image(job.image)}"
    return [*command, image, f"--container-mounts={mounts}", f"--container-workdir={job.places.work}"]


def enroot_image(name: str) -> str:
    """An image as Slurm's container plug-in reads it: `#` parts the registry from the image; files stay as they are."""
    name = name.removeprefix("docker://")
    registry, slash, rest = name.partition("/")
    is_file = name.startswith(("/", "./")) or name.endswith(".sqsh")
    is_registry = "." in registry or ":" in registry or registry == "localhost"
    return f"{registry}#{rest}" if slash and is_registry and not is_file and "#" not in name else name
