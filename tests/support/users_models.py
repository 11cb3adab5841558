"""Checks of users' models in this process, with a worker that needs no process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.checking.known_differences import Differences
from harness.checking.own_model.against import Against, parse_against
from harness.checking.own_model.run import UsersModel
from harness.checking.request import Request, make_case
from harness.checking.run_cell import CellRun
from harness.language.model import load_spec
from harness.results.cell import Cell, CellResult
from harness.runtime.own_model.service import OwnModelService
from harness.worker.launch import Launch
from harness.worker.serve import _failed_reply
from harness.worker.worker import Outcome

GRU = """\
model: gru_lm
summary: Every next character, with torch's GRU.
source: A test.
sizes: {vocab: 40, factors: 12, hidden: 24}
inputs:
  chars: {shape: [batch, time], index: vocab}
layers:
  embed: {layer: embedding, rows: vocab, units: factors}
  rnn: {layer: gru_reset_after, units: hidden}
  out: {layer: dense, units: vocab}
equations: |
  logits = out(rnn(embed(chars)))
  next_chars = softmax(logits)
targets:
  target: {shape: [batch, time], index: vocab}
loss: mean(sparse_cross_entropy(logits, target))
"""
RULES = ("embed=emb", "rnn=gru", "out=fc")
NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, vocab=40, factors=12, hidden=24):
        super().__init__()
        self.emb = nn.Embedding(vocab, factors)
        self.gru = nn.GRU(factors, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, vocab)

    def forward(self, x):
        return self.fc(self.gru(self.emb(x))[0])
"""


class LocalWorker:
    """A replacement of :class:`harness.worker.worker.Worker` that needs no process."""

    pid, starts, launch = 1, 1, Launch("local")

    def __init__(self, service: Any) -> None:
        self.service = service
        self.hello = {
            "versions": dict(service.versions()),
            "devices": service.devices(),
            "dtypes": service.dtypes(),
        }
        self.versions = ", ".join(f"{n} {v}" for n, v in service.versions().items())

    def start(self) -> Outcome:
        return Outcome("ok", self.hello)

    def call(self, verb: str, payload: Any = None, timeout: float | None = None) -> Outcome:
        try:
            return Outcome("ok", getattr(self.service, verb)(**(payload or {})))
        except Exception as error:
            failed = _failed_reply(error)
            return Outcome(
                failed["status"],
                cause=f"{failed['kind']}: {failed['message']}",
                kind=failed["kind"],
            )

    def close(self) -> None:
        """Do nothing, because there is no process to end."""


def model_file(folder: Path, source: str, name: str = "model.py") -> Path:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return path


def checked(
    service: OwnModelService, spec: str | Path, target: str | Against, dtype: str, **more: Any
) -> CellResult:
    """Check one cell; ``more`` has ``sizes``, ``checks``, ``path`` and arguments of
    :func:`parse_against`."""
    sizes, checks = more.pop("sizes", {}), more.pop("checks", ("*",))
    path = more.pop("path", "native")
    own = target if isinstance(target, Against) else parse_against(target, (service.name,), **more)
    loaded = load_spec(str(spec), ())
    request = Request(specs=(loaded.name,), sizes=sizes, against=own)
    cases = [make_case(loaded, request, own=each) for each in (False, True)]
    cell = Cell(loaded.name, own.column, "cpu", dtype, path)
    worker: Any = LocalWorker(service)
    run = CellRun(cell, *cases, worker, Differences(), UsersModel(own), checks=checks)
    return run.run()
