import io
import sys
import tempfile
from pathlib import Path

import pytest
from pipeline_sdg.documents import Entry, Survey
from pipeline_sdg.endpoints import QA, endpoint, is_loopback
from pipeline_sdg.roles import check_may_leave, endpoints_of
from pipeline_sdg.spool import Spool

from pipeline.config import resolve
from pipeline.errors import PipelineError


def test_known_providers_need_their_key_and_the_error_names_it() -> None:
    for provider, variable in (("nvidia", "NVIDIA_API_KEY"), ("openai", "OPENAI_API_KEY")):
        with pytest.raises(PipelineError, match=variable):
            endpoint(QA, provider, "m", None, None, {})
        assert endpoint(QA, provider, "m", None, None, {variable: "k"}).key == "k"
    with pytest.raises(PipelineError, match="MY_KEY"):
        endpoint(QA, "nvidia", "m", "http://localhost:1/v1", "MY_KEY", {"NVIDIA_API_KEY": "k"})


def test_the_address_can_be_overridden() -> None:
    keys = {"NVIDIA_API_KEY": "k", "NVIDIA_API_BASE_URL": "https://proxy.example/v1/"}
    assert endpoint(QA, "nvidia", "m", None, None, {"NVIDIA_API_KEY": "k"}).host == "integrate.api.nvidia.com"
    assert endpoint(QA, "nvidia", "m", None, None, keys).base_url == "https://proxy.example/v1"
    assert endpoint(QA, "nvidia", "m", "http://other:1/v1", None, keys).host == "other"


def test_endpoints_without_key_work_where_that_makes_sense() -> None:
    assert endpoint(QA, "mine", "m", "http://127.0.0.1:8000/v1", None, {}).key == "none"
    assert endpoint(QA, "nvidia", "m", "http://localhost:8000/v1", None, {}).is_local
    assert endpoint(QA, "mine", "m", "http://llm.lan:8000/v1", None, {}).key == "none"
    assert endpoint(QA, "nvidia", "m", None, None, {"NVIDIA_API_BASE_URL": "http://localhost:1/v1"}).key == "none"


def test_unknown_provider_or_address_is_a_clear_error() -> None:
    with pytest.raises(PipelineError, match="no base_url"):
        endpoint(QA, "mine", "m", None, None, {})
    with pytest.raises(PipelineError, match="not an http"):
        endpoint(QA, "mine", "m", "localhost:8000", None, {})


def test_what_cannot_be_a_key_or_would_leak_one_is_refused_without_showing_it() -> None:
    for wrong in ("sec ret", "sec\nret", "secrét"):
        with pytest.raises(PipelineError, match="OPENAI_API_KEY holds something") as caught:
            endpoint(QA, "openai", "m", None, None, {"OPENAI_API_KEY": wrong})
        assert wrong not in str(caught.value)
    with pytest.raises(PipelineError, match="holds a user name") as caught:
        endpoint(QA, "mine", "m", "http://me:secret@llm.lan/v1", None, {})
    assert "secret" not in str(caught.value)


def test_the_key_of_a_service_goes_to_that_service_alone() -> None:
    """`base_url` alone leaves the provider at its default: its key is nobody else's business."""
    keys = {"NVIDIA_API_KEY": "k", "MINE": "own"}
    assert endpoint(QA, "nvidia", "m", "https://elsewhere.example/v1", None, keys).key == "none"
    assert endpoint(QA, "nvidia", "m", "https://elsewhere.example/v1", "MINE", keys).key == "own"
    assert endpoint(QA, "nvidia", "m", "https://integrate.api.nvidia.com/v1", None, keys).key == "k"
    assert endpoint(QA, "nvidia", "m", "http://localhost:8000/v1", None, keys).key == "k"


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(endpoint(QA, "nvidia", "m", None, None, {"NVIDIA_API_KEY": "secret"}))


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("llm", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def roles(*overrides: str, profile: str = "default") -> dict[str, str]:
    resolved = resolve("embed", "sdg", profile, ["base_url=http://localhost:1/v1", *overrides])
    return {item.role: item.provider for item in endpoints_of(resolved.config, resolved.command_line)}


def test_provider_sets_every_role_but_those_named_on_the_command_line() -> None:
    every = {"artifact_extraction", "qa_generation", "quality_judge", "embed"}
    assert roles() == dict.fromkeys(every, "nvidia")
    assert roles("provider=mine") == dict.fromkeys(every, "mine")
    assert roles("provider=mine", "quality_judge_provider=other")["quality_judge"] == "other"
    assert set(roles("provider=embedded")) == every - {"embed"}
    assert set(roles("embed_provider=local")) == every - {"embed"}
    assert roles("artifacts=false", "quality_judge=none", "embed_model=null") == {"qa_generation": "nvidia"}
    assert roles(profile="demo") == {"qa_generation": "embedded"}


def test_a_role_may_be_served_elsewhere_with_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("MY_KEY", "mine")
    overrides = ["base_url=http://localhost:1/v1", "provider=mine", "api_key_env=MY_KEY"]
    resolved = resolve("embed", "sdg", "default", [*overrides, "quality_judge_provider=openai"])
    found = {item.role: (item.host, item.key) for item in endpoints_of(resolved.config, resolved.command_line)}
    assert found["quality_judge"] == ("api.openai.com", "theirs")
    assert found["qa_generation"] == ("localhost", "mine")


CORPUS = Survey(Spool(Path(tempfile.gettempdir())), entries=[Entry("a.md", 1000)])
REMOTE = [endpoint(QA, "mine", "m", "https://llm.example/v1", None, {})]


def test_documents_stay_here_unless_that_was_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    for answer in ("no", "ask"):
        with pytest.raises(PipelineError, match=r"1 documents \(1,000 characters\) .* llm.example") as caught:
            check_may_leave(REMOTE, CORPUS, answer)
        assert "allow_remote=yes" in (caught.value.fix or "")
    check_may_leave(REMOTE, CORPUS, "yes")
    check_may_leave([endpoint(QA, "mine", "m", "http://localhost:1/v1", None, {})], CORPUS, "no")


def test_a_person_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    check_may_leave(REMOTE, CORPUS, "ask")
    monkeypatch.setattr("builtins.input", lambda _: "")
    with pytest.raises(PipelineError, match="you said no"):
        check_may_leave(REMOTE, CORPUS, "ask")


def test_a_local_encoder_is_no_llm() -> None:
    config = resolve("embed", "sdg", "default", ["provider=local"]).config
    with pytest.raises(PipelineError, match="for embed_provider alone"):
        endpoints_of(config, {"provider"})
    ours = resolve("embed", "sdg", "default", ["provider=vllm", "embed_provider=local"]).config
    assert QA in [item.role for item in endpoints_of(ours, {"provider", "embed_provider"})]
