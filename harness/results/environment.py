"""Environment of a run: the machine, and the description that each worker sends when it starts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path

from pydantic import Field

from harness.files.forms import Form
from harness.files.system import memory, processor_name, read_clocks, usable_cores

# Files with the random id that a system gets at installation; see machine-id(5).
NUMBERS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


class Machine(Form):
    """A machine. ``id`` identifies it, ``memory`` is in bytes, and clock frequencies are in MHz.

    ``governor`` is the setting of Linux that controls the clock frequency.
    """

    host: str = ""
    id: str = ""
    cpu: str | None = None
    cores: int | None = None
    usable_cores: int | None = None
    memory: int | None = None
    kernel: str | None = None
    architecture: str | None = None
    python: str | None = None
    governor: str | None = None
    highest_mhz: float | None = None
    mhz: float | None = None


class MachineOf(Form):
    """A machine that computed results of a merged file. ``id`` identifies the machine even if two
    machines have the same host name."""

    id: str
    host: str
    cpu: str = ""


class WorkerDescription(Form):
    """The description that a worker sends when it starts: versions of Python and packages,
    environment variables, and the settings of its backend."""

    versions: dict[str, str]
    python: str = ""
    environment: dict[str, str]
    settings: dict[str, object] = Field(default_factory=dict)

    @property
    def versions_text(self) -> str:
        """The versions of packages as text, e.g. ``torch 2.6.0, numpy 2.1.0``."""
        return ", ".join(f"{name} {text}" for name, text in self.versions.items())


class Environment(Form):
    """Environment of a benchmark: machine, GPUs, options, and the description that each backend's
    worker sent when it started."""

    harness: str | None = None
    machine: Machine
    gpus: list[dict[str, object]]
    device: str
    dtype: str
    path: str
    threads: int
    rounds: int | None = None
    workers: dict[str, WorkerDescription]
    machines: list[MachineOf] = Field(default_factory=list)


def describe_machine(*, timed: bool = False) -> Machine:
    """Return the description of this machine. With ``timed``, it includes the clock frequencies."""
    description = Machine(
        host=platform.node(),
        id=machine_identity(),
        cpu=processor_name(),
        cores=os.cpu_count(),
        usable_cores=usable_cores(),
        memory=memory(),
        kernel=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )
    return description.model_copy(update=read_clocks()) if timed else description


def machine_identity() -> str:
    """Return an identifier of this machine that stays the same after a restart.

    The identifier is a hash, because the system's own id is private. The host name and the
    processor are part of the hash, because all copies of a container image have the same system id.
    """
    number = ""
    for path in NUMBERS:
        with contextlib.suppress(OSError):
            number = number or path.read_text().strip()
    parts = "\n".join(("harness", number, platform.node(), processor_name()))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]
