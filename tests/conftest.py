"""What holds for every test: the same examples in every CI run, a Ctrl-C that arrives, and each
backend in turn for tests that name none."""

from __future__ import annotations

import importlib.util
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# A change must not fail for an example that another change would have met as well: random examples
# are for people, who can look into what was found.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

# A suite that is started in the background inherits an ignored SIGINT and would pass it on to the
# processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Backend -> the module that its package installs.
BACKENDS = {"ctransformers": "ctransformers", "llama-cpp-python": "llama_cpp"}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend: a test that needs one and names none runs on every one of them.

    Of module scope, so that a server or an engine that a module shares is started once a backend.
    """
    name: str = request.param
    if importlib.util.find_spec(BACKENDS[name]) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def each_backend(backend: str) -> Iterator[None]:
    """The processes that a test starts with `support.nitro_process` run on each backend in turn."""
    from support.nitro_process import chosen

    with chosen(backend=backend):
        yield
