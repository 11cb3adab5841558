"""What the backends on JAX start: what a session is of, and nothing for it to be counted.

No card is needed: JAX's own calls are recorded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from needed import need
from wording import Wording

from harness.backends.jax import platforms
from harness.errors import UsageError
from harness.extend import device_names
from harness.runtime.plugins import environment, load

need("jax")


@pytest.mark.parametrize(
    ("nodes", "plugins", "visible", "count"),
    [
        (["null", "nvidia0", "nvidia1", "nvidiactl"], ["xla_cuda13"], None, 2),
        (["nvidia0", "nvidia1"], [], None, 0),
        (["null"], ["xla_cuda12"], None, 0),
        (["null"], ["xla_cuda12"], "0", 0),
        (["nvidia0", "nvidia1"], ["xla_cuda12"], "", 0),
        (["nvidia0", "nvidia1"], ["xla_cuda12"], "1", 1),
        (["nvidia0", "nvidia1"], ["xla_cuda12"], "0,-1,1", 1),
        (["nvidia0"], ["xla_cuda12"], "MIG-1, MIG-2", 2),
        (["dxg"], ["xla_cuda12"], None, 1),
    ],
)
def test_jax_s_cards_are_counted_without_starting_any(
    nodes: list[str], plugins: list[str], visible: str | None, count: int
) -> None:
    assert platforms.gpu_count(nodes, plugins, visible) == count


class FakeJax:
    """Two cards, and which platforms are started."""

    def __init__(self) -> None:
        self.started: list[str | None] = []
        self.cleared = 0
        self.config = SimpleNamespace(jax_platforms=None, update=self._update)
        self.extend = SimpleNamespace(backend=SimpleNamespace(clear_backends=self._clear))

    def _update(self, name: str, value: str) -> None:
        setattr(self.config, name, value)

    def _clear(self) -> None:
        self.cleared += 1

    def local_devices(self, backend: str) -> list[str]:
        self.started.append(self.config.jax_platforms)
        return ["cpu"] if backend == "cpu" else ["first", "second"]


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "devices", lambda: device_names(2))


def test_jax_starts_what_a_session_is_of(two_cards: None, wording: Wording) -> None:
    jax = FakeJax()
    assert platforms.start(jax, "cpu") == "cpu"
    assert platforms.start(jax, "cpu") == "cpu"
    assert (jax.started, jax.cleared) == (["cpu", "cpu"], 0)
    assert platforms.start(jax, "cuda:1") == "second"
    assert (jax.started[-1], jax.cleared) == ("cuda,cpu", 1)
    with wording.raises(UsageError, "'cuda:2' ... cpu, cuda, cuda:0"):
        platforms.start(jax, "cuda:2")


def test_a_card_that_jax_does_not_see_is_named(
    monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setattr(platforms, "devices", lambda: device_names(3))
    with wording.raises(UsageError, "2 ... 'cuda:2'"):
        platforms.start(FakeJax(), "cuda:2")


STARTED = """
import sys
import numpy as np
from jax.extend.backend import register_backend_factory
from harness.runtime.plugins import load

def factory():
    print("the other platform was started")

backend = load(sys.argv[1])
register_backend_factory("other", factory, priority=-1)
backend.devices(), backend.dtypes(), backend.use("cpu", "float32")
x = backend.tensor(np.ones((2, 2), np.float32))
backend.wait({"x": backend.primitives["matmul"](x, x)})
print(backend.device_memory())
"""


@pytest.mark.parametrize("name", ["jax", "keras-jax"])
def test_a_cpu_session_of_jax_starts_no_other_platform(name: str) -> None:
    need("optax")
    variables = {**os.environ, **environment(name)}
    variables.pop("JAX_PLATFORMS", None)
    done = subprocess.run(
        [sys.executable, "-c", STARTED, name], env=variables, capture_output=True, text=True
    )
    assert (done.stdout.split("\n")[:-1], done.returncode) == (["None"], 0), done.stderr


def test_jax_compiles_on_a_card_as_it_does_for_speed() -> None:
    backend: Any = load("jax")
    backend.quick, backend._card = True, 0
    assert backend._options() is None
    assert not backend.repeats()
    backend._card = None
    assert backend._options() is not None
    assert backend.repeats()


def test_a_peak_of_before_is_not_told_as_one_of_now() -> None:
    stats = {"peak_bytes_in_use": 100}
    device = SimpleNamespace(memory_stats=lambda: stats)
    memory = platforms.PeakMemory()
    assert memory.peak_bytes(device) == 100
    memory.forget(device)
    assert memory.peak_bytes(device) is None
    stats["peak_bytes_in_use"] = 120
    assert memory.peak_bytes(device) == 120
    assert memory.peak_bytes(SimpleNamespace(memory_stats=lambda: None)) is None


def test_xla_s_flag_goes_beside_the_others() -> None:
    flag = platforms.DETERMINISTIC
    assert platforms.deterministic({}) == {"XLA_FLAGS": flag}
    assert platforms.deterministic({"XLA_FLAGS": f"--a=1 {flag} --b=2"}) == {
        "XLA_FLAGS": f"--a=1 --b=2 {flag}"
    }
