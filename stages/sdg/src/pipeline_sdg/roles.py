"""Which models this run needs, where they are, and whether the documents may go there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from pipeline.assets import weights_file
from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.documents import Survey
from pipeline_sdg.embedded import embedded_server
from pipeline_sdg.endpoints import (
    ARTIFACTS,
    EMBED,
    EMBEDDED,
    EMBEDDED_MODEL,
    JUDGE,
    PROVIDERS,
    QA,
    Endpoint,
    endpoint,
    remote_hosts,
)
from pipeline_sdg.local_encoder import LOCAL

log = logging.getLogger("pipeline")


def endpoints_of(config: SdgConfig, command_line: Collection[str]) -> list[Endpoint]:
    """The endpoint of every role this run uses.

    `provider` and `base_url` set all roles, less those whose own provider was given on the command line beside
    `provider`: such a role goes to that service's own address, with that service's key.
    """
    needed = {
        ARTIFACTS: config.artifacts and config.qa_format == "full",
        QA: True,
        EMBED: config.embed_model is not None,
        JUDGE: config.quality_judge == "llm"
        or config.check_answers
        or config.hop_check != "off"
        or config.pooled_judging > 0,
    }
    found = []
    for role in (role for role, wanted in needed.items() if wanted):
        named = f"{role}_provider" in command_line
        own = getattr(config, f"{role}_provider")
        provider = own if named or not config.provider else config.provider
        if provider == LOCAL and (role != EMBED or own != LOCAL):
            raise PipelineError(
                f"{role}: provider {LOCAL} is an encoder in this process, for embed_provider alone",
                fix="write embed_provider=local; a server of your own is provider=vllm, or base_url=http://localhost:…",
            )
        if provider == LOCAL:
            continue
        if role == EMBED and provider == EMBEDDED:
            log.info("the embedded LLM makes no embeddings: duplicates are found by their words")
            continue
        elsewhere = named and bool(config.provider) and own != config.provider and own in PROVIDERS
        address, key = (None, None) if elsewhere else (config.base_url, config.api_key_env)
        found.append(endpoint(role, provider, getattr(config, f"{role}_model"), address, key))
    return found


def check_may_leave(endpoints: list[Endpoint], corpus: Survey, allow_remote: Literal["ask", "yes", "no"]) -> None:
    """Say what will leave this machine, and stop unless that is allowed.

    Raises:
        PipelineError: an endpoint is elsewhere and the answer is no, or nobody can be asked.
    """
    hosts = remote_hosts(endpoints)
    if not hosts:
        return
    what = f"{len(corpus.entries)} documents ({corpus.characters:,} characters) will be sent to {', '.join(hosts)}"
    log.info(what)
    if allow_remote == "yes":
        return
    if allow_remote == "ask" and sys.stdin.isatty() and _agreed(what):
        return
    said = "you said no" if allow_remote == "ask" and sys.stdin.isatty() else f"allow_remote={allow_remote}"
    raise PipelineError(
        f"{what}, but {said}",
        fix="set allow_remote=yes if they may leave this machine, or keep them here with provider=embedded "
        "or a base_url on localhost",
    )


def _agreed(what: str) -> bool:
    return input(f"{what}. Is that all right? [y/N] ").strip().lower() in ("y", "yes")


@contextmanager
def served(endpoints: list[Endpoint], parallel: int, threads: int | None) -> Iterator[list[Endpoint]]:
    """The endpoints with their addresses; the embedded LLM is started if a role uses it, and ends with the block."""
    if not any(item.provider == EMBEDDED for item in endpoints):
        yield endpoints
        return
    with embedded_server(weights_file(EMBEDDED_MODEL), parallel, threads) as address:
        yield [replace(item, base_url=address) if item.provider == EMBEDDED else item for item in endpoints]
