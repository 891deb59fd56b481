"""Tests against real services. What is not there is said once and skipped: an engine, a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.run.docker_engine import connect

IMAGE = "pipeline-test:python"


@pytest.fixture(scope="session")
def docker_engine():
    """A client of the engine that DOCKER_HOST or the default socket leads to."""
    try:
        client = connect()
    except PipelineError as error:
        pytest.skip(f"NO DOCKER ENGINE, containers are not tested: {error.message}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def python_image(docker_engine) -> str:
    """An image with sh, a few tools and this test's own Python, made from this machine's files."""
    if sys.platform != "linux":
        pytest.skip("the image is made from the programs of a Linux machine")
    script = Path(__file__).parent / "images" / "python_image.sh"
    made = subprocess.run(["sh", script, sys.executable], capture_output=True)
    assert made.returncode == 0, made.stderr.decode()
    docker_engine.api.import_image_from_data(made.stdout, repository=IMAGE.split(":")[0], tag=IMAGE.split(":")[1])
    return IMAGE
