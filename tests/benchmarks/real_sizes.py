"""Check models at real sizes, and write the table into docs/method-details.md.

    python tests/benchmarks/real_sizes.py [--page]

Each model is checked on torch and JAX without anything kept from earlier runs. ``real_sizes.json``
keeps the measurements; ``--page`` only writes the table. Memory is the largest sum over all
processes of the command, where pages that several processes share count once.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from math import log10
from pathlib import Path
from typing import Any

import click
import psutil
from marked import put

from harness.results.environment import describe_machine

RECORD = Path(__file__).with_suffix(".json")
GPT = {"vocab": 50257, "heads": 12, "head": 64, "wide": 3072, "depth": 12, "context": 1024}
LLAMA = {"vocab": 32000, "groups": 4, "each": 4, "half": 32, "wide": 2816, "depth": 8}
RESNET50 = Path(__file__).parent / "specs" / "models" / "resnet50.yaml"
# Name -> the spec, the sizes, and what they are.
MODELS: dict[str, tuple[str, dict[str, int], str]] = {
    "gpt": ("gpt", GPT, "GPT-2 small"),
    "llama": ("llama", LLAMA, "8 blocks of width 1,024"),
    "resnet50": (str(RESNET50), {}, "224 pixels"),
}
MIB = 1 << 20


def check(spec: str, sizes: dict[str, int]) -> dict[str, Any]:
    """Run the check; return its seconds, core-seconds, MiB and results."""
    harness = str(Path(sys.executable).with_name("harness"))
    command = [harness, "check", spec, "--backend", "torch,jax", "--fresh", "--json"]
    command += [part for name, size in sizes.items() for part in ("--size", f"{name}={size}")]
    before, started, most = os.times(), time.monotonic(), 0
    with tempfile.TemporaryFile() as output:
        run = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            most = max(most, _memory(run.pid))
            time.sleep(0.5)
        output.seek(0)
        found = json.load(output)
    after = os.times()
    used = after.children_user + after.children_system
    return {
        "seconds": round(time.monotonic() - started),
        "core_seconds": round(used - before.children_user - before.children_system),
        "mib": most // MIB,
        "errors": {
            each["backend"]: each["error"]
            for each in found["results"]
            if each["check"] == "own-sizes"
        },
        "verdicts": sorted({each["verdict"] for each in found["results"]}),
    }


def _memory(pid: int) -> int:
    """Return the bytes of a process and its descendants."""
    total = 0
    command = psutil.Process(pid)
    for process in (command, *command.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            total += process.memory_full_info().pss
    return total


def table(record: dict[str, Any]) -> str:
    """Return the table of a record, as Markdown."""
    lines = [
        "| model | size | seconds | core-seconds | memory | digits of torch, jax |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name, found in record["models"].items():
        digits = ", ".join(f"{-log10(found['errors'][b]):.1f}" for b in ("torch", "jax"))
        lines.append(
            f"| {name} | {MODELS[name][2]} | {found['seconds']} | {found['core_seconds']} | "
            f"{found['mib'] / 1024:.1f} GiB | {digits} |"
        )
    return "\n".join([*lines, "", f"Machine: {record['machine']}, two cores.", ""])


@click.command()
@click.option("--page", is_flag=True, help="Only write the table.")
def main(page: bool) -> None:
    """Check all models, and write the table."""
    if not page:
        record: dict[str, Any] = {"machine": describe_machine().cpu, "models": {}}
        for name, (spec, sizes, _) in MODELS.items():
            record["models"][name] = check(spec, sizes)
            click.echo(f"{name}: {record['models'][name]}")
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    put("method-details.md", "real sizes", table(json.loads(RECORD.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
