"""Readers of what comes with a model of a user's own: rules of ``--map``, and a Python file.

The file is looked at for what it imports, and not run.
"""

from __future__ import annotations

from pathlib import Path

from harness.checking.own_model.against import parse_against
from harness.runtime.own_model.renames import Rename, view_of

RULES = b"rnn = gru\na.*.W=gru.kernel[0:3, 1].T  # one"
SOURCE = b"import torch\n\n\ndef f(x):\n    pass\n"


def read_rules(data: bytes, folder: Path) -> None:
    (folder / "a.map").write_bytes(data)
    (folder / "m.py").write_bytes(b"import torch")
    found = parse_against(f"{folder / 'm.py'}:Net", maps=[str(folder / "a.map")])
    for rule in map(Rename.of, found.maps):
        view_of(rule.renamed(".".join(rule.ours)) or "", {"gru.kernel": 0}, {"units": 1})


def read_source(data: bytes, folder: Path) -> None:
    (folder / "m.py").write_bytes(data)
    parse_against(f"{folder / 'm.py'}:Net")
