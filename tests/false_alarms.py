"""How often honest backends are blamed, and what K was chosen from.

Runs every Lesson 6 system on every installed backend over many seeds in float32, and writes the
distribution of error over yardstick as docs/false-alarms.md. Not a test: it takes minutes.

    python tests/false_alarms.py --seeds 100
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from harness.check.checks import CHECKS, Context
from harness.check.findings import Finding
from harness.check.request import Request, make_case
from harness.oracle.case import Case
from harness.oracle.tolerance import FLOOR, K
from harness.runtime.plugins import choose_backends
from harness.spec.library import lesson6
from harness.spec.model import Spec, load_spec
from harness.worker.launch import Launch
from harness.worker.remote import Remote
from harness.worker.worker import Worker

GROUPS = ("values", "cotangents", "inference", "carried-state", "training-sgd", "kinks")
TARGET = Path(__file__).parent.parent / "docs" / "false-alarms.md"


def findings(case: Case, remote: Remote, groups: Sequence[str]) -> Iterator[Finding]:
    """The findings of some checks on a session that is open already."""
    context = Context(case, case, remote, "native", "float32", "cpu")
    for group in groups:
        for finding in CHECKS[group](context):
            yield finding.judge()


def measure(
    spec: Spec, workers: dict[str, Worker], seeds: int
) -> tuple[dict[str, list[float]], list[str]]:
    """Ratios of all tensors by backend, and the alarms in words."""
    ratios: dict[str, list[float]] = {name: [] for name in workers}
    alarms = []
    remotes = {name: Remote(worker, 36_000.0) for name, worker in workers.items()}
    for seed in range(seeds):
        case = make_case(spec, Request(seed=seed), own=False)
        for name, remote in remotes.items():
            if seed == 0:
                remote.open(case.training, case.inference, spec.update, "native", "float32", "cpu")
            for finding in findings(case, remote, GROUPS):
                ratios[name] += [d.ratio for d in finding.deviations]
                if finding.verdict != "agree":
                    alarms.append(
                        f"{spec.name}, {name}, seed {seed}: {finding.check}: {finding.detail}"
                    )
    return ratios, alarms


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--spec", action="append", default=[])
    options = parser.parse_args()
    started = time.monotonic()
    backends = choose_backends(options.backend)
    workers = {name: Worker(Launch(name)) for name in backends}
    rows: dict[str, dict[str, list[float]]] = {}
    alarms: list[str] = []
    try:
        for name in track(options.spec or lesson6(), description="systems"):
            rows[name], found = measure(load_spec(name), workers, options.seeds)
            alarms += found
            for line in found:
                print(line, flush=True)
        versions = {n: (w.hello or {}).get("versions", {}) for n, w in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    text = table(rows, alarms, versions, options.seeds)
    if not options.spec and not options.backend:
        TARGET.write_text(text, encoding="utf-8")
    print(text)
    print(f"{time.monotonic() - started:.0f} s, {len(alarms)} alarms")


def table(
    rows: dict[str, dict[str, list[float]]],
    alarms: list[str],
    versions: dict[str, dict[str, str]],
    seeds: int,
) -> str:
    """The page: largest ratio by system and backend, and the quantiles of all."""
    backends = list(next(iter(rows.values())))
    everything = np.array([r for row in rows.values() for ratios in row.values() for r in ratios])
    lines = [
        "# False alarms",
        "",
        "Written by `python tests/false_alarms.py`. Each Lesson 6 system on each backend, native",
        f"path, float32, {seeds} seeds; outputs, loss, state, statistics, gradients of the loss",
        "and along random cotangents, inference, carried state, four steps of gradient descent,",
        "and exact kinks.",
        "",
        f"{len(everything):,} comparisons, {len(alarms)} alarms (error above K = {K:g} yardsticks;",
        f"the yardstick is never below {FLOOR:.2g}).",
        "",
        "Largest error over yardstick:",
        "",
        "| system | " + " | ".join(backends) + " |",
        "|---|" + "---:|" * len(backends),
    ]
    for spec, row in rows.items():
        lines.append(f"| {spec} | " + " | ".join(f"{max(row[b]):.2f}" for b in backends) + " |")
    lines += ["", "Quantiles of error over yardstick, by backend:", ""]
    quantiles = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)
    lines.append("| backend | " + " | ".join(f"{q:g}" for q in quantiles) + " |")
    lines.append("|---|" + "---:|" * len(quantiles))
    for backend in backends:
        ratios = np.concatenate([np.array(row[backend]) for row in rows.values()])
        found = " | ".join(f"{v:.2f}" for v in np.quantile(ratios, quantiles))
        lines.append(f"| {backend} | {found} |")
    lines += ["", "Versions:", ""]
    lines += [
        f"- {n}: {', '.join(f'{k} {v}' for k, v in found.items())}" for n, found in versions.items()
    ]
    if alarms:
        lines += ["", "Alarms:", "", *(f"- {line}" for line in alarms)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
