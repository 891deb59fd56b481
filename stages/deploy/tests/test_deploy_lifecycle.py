"""Starting, finding, replacing and stopping a service; and everything that can be wrong before it starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_deploy.artifacts import open_artifact
from pipeline_deploy.launch import ServerProcess, start_detached, wait_until_ready
from pipeline_deploy.ports import check_port, reachable_url
from pipeline_deploy.server import Settings
from pipeline_deploy.serving import Limits

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.run.service import Health, answers, describe, health, is_alive, read_service, stop, tail
from pipeline.run.snapshot import sha256_of


def test_the_life_of_a_background_service(new_deployment):
    service = new_deployment.run("detach=true")
    assert health(new_deployment.folder) == Health.READY
    ready, text = describe(new_deployment.folder)
    assert ready and service.url in text
    assert service.port == new_deployment.port and service.pid != os.getpid()
    command = Path(f"/proc/{service.pid}/cmdline").read_text()
    assert "pipeline_deploy.server" in command and "key" not in command.lower()
    assert any("ready at" in line for line in tail(new_deployment.folder))
    manifest = json.loads((new_deployment.folder / "manifest.json").read_text())
    assert list(manifest["outputs"]) == ["service.json"]

    with pytest.raises(PipelineError, match=f"already at {service.url}") as caught:
        new_deployment.run("detach=true")
    assert "replace_existing=true" in caught.value.fix and is_alive(service)

    replaced = new_deployment.run("detach=true", "replace_existing=true", "served_model_name=other")
    assert replaced.pid != service.pid and not is_alive(service)
    assert health(new_deployment.folder) == Health.READY
    assert (new_deployment.folder / "logs" / "server.log.1").is_file()

    assert "stopped" in stop(new_deployment.folder)
    assert health(new_deployment.folder) == Health.NONE and not answers(service.url, 0.5)


def test_a_service_that_died_is_replaced_without_asking(new_deployment):
    service = new_deployment.run("detach=true")
    os.kill(service.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while is_alive(service) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert health(new_deployment.folder) == Health.GONE
    assert new_deployment.run("detach=true").pid != service.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_foreground_service_ends_cleanly(new_deployment, number):
    process = new_deployment.start_process()
    try:
        deadline = time.monotonic() + 60
        while health(new_deployment.folder) != Health.READY and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        assert read_service(new_deployment.folder).pid == process.pid
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "curl -X POST" in output and "served for" in output
    assert health(new_deployment.folder) == Health.NONE
    assert (new_deployment.folder / "manifest.json").is_file()
    assert not (new_deployment.folder / ".started.json").exists()


def test_a_port_in_use_is_named_with_its_holder(new_deployment):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", new_deployment.port))
        holder.listen()
        with pytest.raises(PipelineError, match=f"port {new_deployment.port} on 127.0.0.1 is in use") as caught:
            new_deployment.run("detach=true")
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in caught.value.message
    assert "host_port=" in caught.value.fix
    assert read_service(new_deployment.folder) is None


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(PipelineError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", 8000)
    with pytest.raises(PipelineError, match="bind_address=no such host"):
        check_port("no such host", 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
        ("box", "http://box:8000"),
    ],
)
def test_the_address_for_clients(host, url):
    assert reachable_url(host, 8000) == url


def test_every_missing_file_is_named_at_once(tmp_path):
    with pytest.raises(PipelineError) as caught:
        open_artifact(tmp_path, "embed")
    for name in ("model.onnx", "tokenizer.json", "encoding_contract.json", "metadata.json"):
        assert f"{name} is missing" in caught.value.message


def test_damaged_files_are_named(copy_of_export):
    (copy_of_export / "tokenizer.json").write_text("{")
    with (copy_of_export / "model.onnx").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\0\0\0\0")
    with pytest.raises(PipelineError) as caught:
        open_artifact(copy_of_export, "embed")
    assert "tokenizer.json cannot be read" in caught.value.message
    assert "model.onnx is not the file that was exported" in caught.value.message


def test_the_contract_and_the_tokenizer_are_those_that_were_exported(copy_of_export):
    contract = EncodingContract.load(copy_of_export)
    contract.with_(query_prefix="another: ", tokenizer_hash="0123").save(copy_of_export)
    with pytest.raises(PipelineError) as caught:
        open_artifact(copy_of_export, "embed")
    assert f"is not the one that was exported ({EncodingContract.load(copy_of_export).digest()}" in caught.value.message
    assert "is not the tokenizer of the contract beside it" in caught.value.message


def test_a_form_of_an_earlier_export_is_refused(copy_of_export):
    listing = copy_of_export.parent / "exports.json"
    listing.write_text(json.dumps({"default": "onnx", "exports": {"onnx": {"path": "onnx"}}}))
    older = shutil.copytree(copy_of_export, copy_of_export.with_name("onnx_int8"))
    assert open_artifact(copy_of_export, "embed").folder == copy_of_export
    with pytest.raises(PipelineError, match=r"onnx_int8 is left from an earlier export: exports\.json"):
        open_artifact(older, "embed")
    listing.write_text('{"something": "else"}')
    assert open_artifact(older, "embed").folder == older


def test_the_folder_above_an_export_leads_to_it(exported):
    with pytest.raises(PipelineError) as caught:
        open_artifact(exported.parent, "embed")
    assert caught.value.fix == f"set model_dir={exported}"


def test_a_model_of_another_family_is_refused(exported, exported_reranker):
    with pytest.raises(PipelineError, match="is of the embed family, this is `pipeline rerank deploy`") as caught:
        open_artifact(exported, "rerank")
    assert caught.value.fix == "use `pipeline embed deploy` for it"
    with pytest.raises(PipelineError, match="is of the rerank family, this is `pipeline embed deploy`"):
        open_artifact(exported_reranker, "embed")


def test_a_server_that_cannot_load_its_model_is_reported_with_its_log(copy_of_export, new_deployment):
    model, metadata = copy_of_export / "model.onnx", copy_of_export / "metadata.json"
    model.write_bytes(b"not a model")
    record = json.loads(metadata.read_text())
    record["files"]["model.onnx"] = {"size": model.stat().st_size, "sha256": sha256_of(model)}
    metadata.write_text(json.dumps(record))
    with pytest.raises(PipelineError, match="before it was ready") as caught:
        new_deployment.run("detach=true", f"model_dir={copy_of_export}")
    assert "cannot load" in caught.value.message and "server.log" in caught.value.fix
    assert read_service(new_deployment.folder) is None


def test_another_tokenizer_than_the_contracts_is_refused(copy_of_export, new_deployment):
    path = copy_of_export / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["normalizer"]["lowercase"] = not rules["normalizer"]["lowercase"]
    path.write_text(json.dumps(rules))
    with pytest.raises(PipelineError, match="not the tokenizer of the contract"):
        new_deployment.run("detach=true", f"model_dir={copy_of_export}")


@pytest.mark.parametrize("keep", [False, True])
def test_a_server_that_never_answers_is_stopped_unless_it_is_to_be_kept(tmp_path, free_port, keep):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    log = tmp_path / "server.log"
    log.write_text("loading…\n")
    try:
        with pytest.raises(PipelineError, match="did not answer") as caught:
            wait_until_ready(ServerProcess(process, log), f"http://127.0.0.1:{free_port}", 0.3, 0.1, keep)
        assert "loading…" in caught.value.message
        assert (process.poll() is None) == keep
    finally:
        process.kill()
        process.wait()


def test_settings_survive_the_command_line(tmp_path):
    settings = Settings("rerank", tmp_path, "::1", 9000, "my model", Limits(10, 20), 3)
    assert Settings.parse(settings.arguments()) == settings
    assert Settings.parse(replace(settings, threads=None).arguments()).threads is None


def test_a_detached_server_is_in_a_session_of_its_own(tmp_path, free_port):
    settings = Settings("embed", tmp_path / "nothing", "127.0.0.1", free_port, "custom", Limits())
    process = start_detached(settings, tmp_path / "server.log").process
    try:
        assert os.getsid(process.pid) != os.getsid(0)
        assert process.wait(60) == 1
    finally:
        process.kill()
    assert "cannot be served" in (tmp_path / "server.log").read_text()
