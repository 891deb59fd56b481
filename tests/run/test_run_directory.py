"""Atomic files, locks, snapshots, manifests and freshness."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.errors import LockedError, PipelineError
from pipeline.run.files import atomic_open, read_json, write_json
from pipeline.run.freshness import State, input_paths, is_remote, remote_places, status_of
from pipeline.run.handoff import read_handoff, write_handoff
from pipeline.run.lock import is_locked, stage_lock
from pipeline.run.manifest import Manifest, mark_started
from pipeline.run.snapshot import differences, snapshot
from pipeline.run.stage import StageResult, StageRun, execute


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    target = write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), atomic_open(target) as stream:
        stream.write("half")
        raise RuntimeError("crash")
    assert read_json(target) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_is_strict(tmp_path: Path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"score": float("-inf")})
    assert not (tmp_path / "a.json").exists()


def test_broken_json_names_file_and_line(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"a": 1,\n"b": }')
    with pytest.raises(PipelineError, match=r"a\.json:2"):
        read_json(tmp_path / "a.json")


def test_a_lock_names_its_holder_and_dies_with_its_process(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from pipeline.run.lock import stage_lock\n"
        "with stage_lock(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    for file, fix in (("data.json", "wait until it ends"), ("service.json", "deploy-stop")):
        (tmp_path / file).touch()
        with pytest.raises(LockedError, match=str(holder.pid)) as caught, stage_lock(tmp_path):
            pass
        assert fix in caught.value.fix
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with stage_lock(tmp_path):
        pass
    assert not is_locked(tmp_path)


def test_a_snapshot_compares_content_not_time(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("two")
    before = snapshot(tmp_path)
    os.utime(tmp_path / "a.txt", (1, 1))
    assert differences(before, snapshot(tmp_path, before)) == []
    (tmp_path / "a.txt").write_text("ONE")
    (tmp_path / "new.txt").write_text("x")
    assert differences(before, snapshot(tmp_path, before)) == ["a.txt", "new.txt"]
    assert snapshot(tmp_path / "nothing") is None


def test_a_stage_folder_stands_for_the_outputs_of_its_manifest(tmp_path: Path):
    (tmp_path / "out.json").write_text("{}")
    (tmp_path / "journal.sqlite").write_text("grows")
    (tmp_path / "manifest.json").write_text(json.dumps({"outputs": snapshot(tmp_path / "out.json")}))
    assert list(snapshot(tmp_path)) == ["out.json"]


@pytest.mark.parametrize(
    ("value", "remote"),
    [
        ("nvidia/llama-nemotron-embed-1b-v2", True),
        ("embedded:all-MiniLM-L6-v2", True),
        ("hf://org/data@rev/sub", True),
        ("./models/mine", False),
        ("/abs/model", False),
        ("data/train.json", False),
        ("output/embed/stage4_export/onnx", False),
    ],
)
def test_names_are_told_from_paths(value, remote):
    assert is_remote(value) is remote


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.md").write_text("text")
    return folder


def sdg_config(tmp_path: Path, corpus: Path, *more: str):
    return resolve("embed", "sdg", "default", [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", *more])


def fake_main(config, run: StageRun) -> StageResult:
    """Stands in for a stage's code beside the tests of the real ones; the runner around it is real."""
    output = write_json(run.folder / "generated_batch0_0_0.json", [{"seed": config.seed}])
    return StageResult([output], counts={"documents": 1})


def test_states_of_a_stage_from_missing_to_done_to_stale(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus)
    assert status_of(resolved).state is State.MISSING
    assert execute(resolved, fake_main) is None
    assert status_of(resolved).state is State.DONE

    changed = status_of(sdg_config(tmp_path, corpus, "num_pairs=3"))
    assert changed.state is State.STALE and changed.reasons == ["num_pairs 10 -> 3"]
    speed_only = status_of(sdg_config(tmp_path, corpus, "max_parallel_requests_for_gen=1"))
    assert speed_only.state is State.DONE

    (corpus / "a.md").write_text("other text")
    stale = status_of(resolved)
    assert stale.state is State.STALE and stale.reasons == ["corpus_dir changed (a.md)"]
    execute(resolved, fake_main)
    (resolved_folder(resolved) / "generated_batch0_0_0.json").unlink()
    assert "is gone" in status_of(resolved).reasons[0]


def resolved_folder(resolved) -> Path:
    return Path(resolved.config.output_dir)


def test_a_run_that_died_is_partial_even_when_an_older_one_was_done(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus)
    execute(resolved, fake_main)
    mark_started(resolved_folder(resolved), "sdg")
    assert status_of(resolved).state is State.PARTIAL
    execute(resolved, fake_main)
    assert status_of(resolved).state is State.DONE


def test_a_moved_run_directory_stays_fresh(tmp_path: Path, corpus: Path):
    execute(sdg_config(tmp_path, corpus), fake_main)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert status_of(sdg_config(tmp_path, corpus, f"run_dir={tmp_path / 'moved'}")).state is State.DONE


def test_a_list_of_sources_is_compared_by_content_number_and_hub_name(tmp_path: Path):
    paths = [tmp_path / name / "rows.jsonl" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("{}")

    def config(*entries: str):
        run = [f"run_dir={tmp_path / 'run'}", "val_data_path=null", "base_model=embedded:x"]
        return resolve("embed", "finetune", "default", [*run, f"train_data_path=[{','.join(entries)}]"])

    first, hub = f"{{path: {paths[0]}, num_samples: 5}}", "hf://org/data/sub"
    resolved = config(first, str(paths[1]), hub)
    assert input_paths(resolved, "train_data_path") == paths
    assert remote_places(resolved, "train_data_path") == [hub]
    execute(resolved, fake_main)
    assert status_of(resolved).state is State.DONE
    for entries in ((first.replace("5", "6"), paths[1], hub), (first, paths[1], f"{hub}@v2"), (first, paths[1])):
        changed = status_of(config(*map(str, entries)))
        assert changed.state is State.STALE and changed.reasons[0].startswith("train_data_path ")
    paths[1].write_text("{} ")  # both files have one name
    assert status_of(resolved).reasons == ["train_data_path changed (1/rows.jsonl/rows.jsonl)"]
    paths[1].unlink()
    with pytest.raises(PipelineError, match=r"train_data_path: .*/b/rows\.jsonl does not exist"):
        execute(resolved, fake_main)


def test_a_missing_input_fails_before_any_work(tmp_path: Path):
    resolved = resolve("embed", "prep", "default", [f"run_dir={tmp_path}"])

    def never(config, run):
        raise AssertionError("must not start")

    with pytest.raises(PipelineError, match="sdg_input_path") as caught:
        execute(resolved, never)
    assert "pipeline embed sdg" in caught.value.fix
    assert not (tmp_path / "stage1_data_prep" / "manifest.json").exists()


def test_a_failing_stage_leaves_no_manifest(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus)

    def fails(config, run):
        raise PipelineError("no")

    with pytest.raises(PipelineError):
        execute(resolved, fails)
    assert status_of(resolved).state is State.PARTIAL


def test_a_gate_that_did_not_hold_is_remembered(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus)

    def gated(config, run):
        result = fake_main(config, run)
        result.failure = "TensorRT is missing"
        return result

    assert execute(resolved, gated) == "TensorRT is missing"
    status = status_of(resolved)
    assert status.state is State.STALE and "TensorRT is missing" in status.reasons[0]
    execute(resolved, fake_main)
    assert status_of(resolved).state is State.DONE


def test_the_next_command_names_the_run_directory_a_person_chose(tmp_path: Path, corpus: Path):
    hints = []

    def notes(config, run):
        hints.append(run.config_hint)
        return fake_main(config, run)

    execute(sdg_config(tmp_path, corpus), notes)
    assert hints == [f" -c default run_dir={tmp_path / 'run'}"]


def test_the_manifest_holds_what_the_design_promises_and_no_secret(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus, "nvidia_api_key=nvapi-secret")
    execute(resolved, fake_main)
    folder = resolved_folder(resolved)
    manifest = Manifest.load(folder)
    assert manifest.inputs["corpus_dir"]["a.md"]["sha256"]
    assert manifest.outputs["generated_batch0_0_0.json"]["sha256"]
    assert manifest.seconds >= 0 and manifest.code_version and manifest.lock_hash and manifest.host
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"nvapi-secret" not in path.read_bytes()
    assert (folder / "logs" / "latest.log").exists()


def test_the_handoff_brings_the_configuration_over_without_secrets(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus, "nvidia_api_key=nvapi-secret", "seed=9")
    path = write_handoff(resolved, tmp_path / "handoff.yaml")
    assert "nvapi-secret" not in path.read_text()
    back = read_handoff(path)
    assert back.config == resolved.config
    assert back.explicit == resolved.explicit


def test_the_lock_is_held_while_a_stage_works(tmp_path: Path, corpus: Path):
    resolved = sdg_config(tmp_path, corpus)

    def looks(config, run):
        code = (
            "import sys; from pathlib import Path; from pipeline.run.lock import is_locked\n"
            "print(is_locked(Path(sys.argv[1])))"
        )
        seen = subprocess.run([sys.executable, "-c", code, str(run.folder)], capture_output=True, text=True)
        assert seen.stdout == "True\n"
        return fake_main(config, run)

    execute(resolved, looks)


def test_progress_says_rate_and_time_left(caplog):
    from pipeline.run.progress import Progress, duration

    shown = Progress("sdg", 10, "calls", None, __import__("logging").getLogger("pipeline"))
    shown._start = time.monotonic() - 5
    shown.advance(5)
    assert "5/10 calls (50%)" in shown.line() and "5s left" in shown.line()
    assert [duration(value) for value in (59, 61, 3700)] == ["59s", "1m01s", "1h01m"]
