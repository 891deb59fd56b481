"""What `~/` and environment variables of this machine become in the far side's command line."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.execution.own_values import settled
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task, joined_arguments, make_task

BOX = Profile(name="box", executor="docker", container_image="i")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHERE", "/here")
    monkeypatch.setenv("SOME_TOKEN", "canary")


def task(text: str, *overrides: str, stage: str = "sdg", chained: bool = False) -> Task:
    Path("my.yaml").write_text(f"extends: smoke\n{text}\n")
    own = [item.removeprefix(f"{stage}.") for item in overrides]
    return make_task(make_plan(resolve("rerank", stage, "./my.yaml", own)), "./my.yaml", overrides, chained=chained)


def added(one: Task, profile: Profile = BOX) -> list[str]:
    return list(settled(one, profile).overrides[len(one.overrides) :])


def test_a_file_of_ones_own_means_what_it_says_here():
    assert added(task("corpus_dir: ~/docs\nseed: 1")) == [f"corpus_dir={Path.home()}/docs"]
    both = task("corpus_dir: ${oc.env:WHERE}/docs\nrun_dir: ${oc.env:NOWHERE,./r}")
    assert sorted(added(both)) == ["corpus_dir=/here/docs", "run_dir=./r"]


def test_the_last_word_is_the_one_that_is_filled_in():
    assert added(task("corpus_dir: ~/docs", "corpus_dir=/docs")) == []
    assert added(task("corpus_dir: /docs", "corpus_dir=~/docs")) == [f"corpus_dir={Path.home()}/docs"]


def test_variables_that_the_profile_gives_are_read_there():
    one = task("corpus_dir: ${oc.env:WHERE}/docs")
    assert added(one, dataclasses.replace(BOX, env_vars={"WHERE": "/there"})) == []


def test_no_secret_is_written_into_a_command_line():
    assert added(task("nvidia_api_key: ${oc.env:SOME_TOKEN}")) == ["nvidia_api_key=null"]
    assert added(task("corpus_dir: /docs/${oc.env:SOME_TOKEN}")) == []


def test_in_a_run_the_stage_is_named_and_every_stage_has_its_own():
    tasks = [settled(task("seed: ${oc.env:SEED,3}", stage=name, chained=True), BOX) for name in ("sdg", "prep")]
    assert joined_arguments(tasks)[-2:] == ["sdg.seed=3", "prep.seed=3"]
