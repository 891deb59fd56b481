"""Where each role's model is served, with which key, and whether that is this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.errors import PipelineError
from pipeline.llm import is_loopback

EMBEDDED = "embedded"
EMBEDDED_MODEL = "SmolLM2-135M-Instruct"
DUMMY_KEY = "none"
"""The client insists on a key; servers that need none ignore it."""

ARTIFACTS, QA, JUDGE, EMBED = "artifact_extraction", "qa_generation", "quality_judge", "embed"


@dataclass(frozen=True)
class Provider:
    """A service known by name. `url_env` may override its address."""

    base_url: str
    key_env: str | None = None
    url_env: str | None = None


PROVIDERS = {
    "nvidia": Provider("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "NVIDIA_API_BASE_URL"),
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "vllm": Provider("http://localhost:8000/v1"),
    "ollama": Provider("http://localhost:11434/v1"),
}


@dataclass(frozen=True)
class Endpoint:
    """One role's model and address. `base_url` is empty for the embedded LLM until its server runs."""

    role: str
    provider: str
    model: str
    base_url: str = ""
    key: str = field(default=DUMMY_KEY, repr=False)
    key_env: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """What tells this endpoint's answers from another's: the embedded server's port does not."""
        return self.provider, "" if self.provider == EMBEDDED else self.base_url

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_local(self) -> bool:
        return self.provider == EMBEDDED or is_loopback(self.host)


def endpoint(
    role: str,
    provider: str,
    model: str,
    base_url: str | None,
    api_key_env: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Endpoint:
    """Resolve one role.

    Raises:
        PipelineError: the provider is unknown and no base_url is given, or the key is missing; the message names the
            environment variable.
    """
    if provider == EMBEDDED:
        return Endpoint(role, EMBEDDED, EMBEDDED_MODEL)
    known = PROVIDERS.get(provider)
    address = base_url or (known and known.url_env and environment.get(known.url_env)) or (known and known.base_url)
    if not address:
        raise PipelineError(
            f"{role}_provider={provider}: not a known provider ({', '.join([*PROVIDERS, EMBEDDED])}) and no base_url",
            fix="set base_url=http://HOST:PORT/v1, or choose a known provider",
        )
    if urlsplit(address).username is not None:
        raise PipelineError(
            f"base_url of {role} holds a user name: it would be written into logs",
            fix="put the key into an environment variable and name that in api_key_env",
        )
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise PipelineError(f"base_url={address}: not an http(s) address", fix="write it like http://localhost:8000/v1")
    variable = api_key_env or (known.key_env if known else None)
    # The key of a known service goes to that service, to this machine, or where api_key_env says so: nowhere else.
    foreign = base_url and known and api_key_env is None and not _is_at(base_url, known)
    key = environment.get(variable, "").strip() if variable and not foreign else ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise PipelineError(
            f"{role}: {variable} holds something that cannot be an API key (blanks, line breaks or odd letters)",
            fix=f"set {variable} anew; its value is not shown",
        )
    resolved = Endpoint(role, provider, model, address.rstrip("/"), key or DUMMY_KEY, variable)
    keyless = api_key_env is None and (base_url or resolved.is_local)
    if not key and not keyless:
        raise PipelineError(
            f"{role}: no API key for {resolved.base_url}: the environment variable {variable} is not set",
            fix=f"export {variable}=…, or use a model on this machine: provider=embedded, or base_url=http://localhost:…",
        )
    return resolved


def _is_at(address: str, service: Provider) -> bool:
    host = urlsplit(address).hostname or ""
    return is_loopback(host) or host == urlsplit(service.base_url).hostname


def remote_hosts(endpoints: list[Endpoint]) -> list[str]:
    """The hosts outside this machine, each once."""
    return sorted({item.host for item in endpoints if not item.is_local})
