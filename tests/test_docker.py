"""The Dockerfile copies what the wheel is built from and installs an extra that there is."""

import re
import shlex
import tomllib

import pytest
from helpers import PROJECT

DOCKERFILE = PROJECT / ".ci" / "Dockerfile"


@pytest.fixture
def instructions():
    """The lines of the Dockerfile: name and words."""
    lines = (line for line in DOCKERFILE.read_text().splitlines() if line[:1] not in ("", "#"))
    return [(name, shlex.split(rest)) for name, _, rest in (line.partition(" ") for line in lines)]


def test_all_that_the_wheel_is_built_from_is_copied(instructions):
    copied = {source for name, words in instructions if name == "COPY" for source in words[:-1]}
    assert all((PROJECT / source).exists() for source in copied)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "setup.py", project["readme"], *project["license-files"]}
    assert copied == needed | {"supervised_reptile"}


def test_the_build_argument_is_an_extra(instructions):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (default,) = (words[0] for name, words in instructions if name == "ARG")
    argument, _, device = default.partition("=")
    page = (PROJECT / "docs" / "platforms.md").read_text()
    devices = {device, *re.findall(rf"--build-arg {argument}=(\w+)", page)}
    assert devices == {"cpu", "gpu"} <= set(project["optional-dependencies"])
    (run,) = (words for name, words in instructions if name == "RUN")
    assert run == ["pip", "install", "--no-cache-dir", f".[${{{argument}}}]"]
    (base,) = (words[0] for name, words in instructions if name == "FROM")
    assert base == f"python:{project['requires-python'].removeprefix('>=')}-slim"


def test_the_image_runs_the_command(instructions):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (entry,) = (words for name, words in instructions if name == "ENTRYPOINT")
    assert entry == [f"[{name}]" for name in project["scripts"]]
