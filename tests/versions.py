"""Script that tests the lowest and the newest dependency versions that pyproject.toml allows.

    python tests/versions.py lowest                    # each part in its own environment
    python tests/versions.py lowest torch --python python3.12
    python tests/versions.py newest all
    python tests/versions.py show                      # print what was tested, with the verdicts
    python tests/versions.py tables                    # write the table of docs/versions.md
    python tests/versions.py constraints               # write the versions of this environment

An environment has exactly the lowest version of everything that its part declares. Indirect
dependencies have the newest version that fits. Each environment is made in a temporary folder, and
each outcome is stored in tried.json. This is not a test: it downloads several gigabytes and takes
half an hour.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import dependencies as known
from packaging.requirements import Requirement

SPECS = ["three_char", "sequence_rnn", "keras_gru", "stateful_lstm"]
TRAINED = "lesson6/keras_gru"
# An extra of the package brings backends, a format, or both, all of the same name.
BACKENDS = {
    "core": ["numpy"],
    "torch": ["torch"],
    "jax": ["jax"],
    "flax": ["flax"],
    "keras": ["keras"],
    "onnxruntime": ["onnxruntime"],
    "array-api-strict": ["array-api-strict"],
    "pytensor": ["pytensor"],
}
# Parts whose own needs are higher than the lowest versions: JAX 0.8.1 or later, for Flax 0.12.1.
LATER = {"flax": {"numpy": "2.0.0", "scipy": "1.13.0"}}
FORMATS = {"torch": "pt", "jax": "npz", "keras": "keras", "onnx": "onnx"}
EVERY = "all"
SECONDS = 1800


def extras_of(part: str) -> list[str]:
    """Return the extras that a part installs."""
    if part == EVERY:
        return known.together(known.project())
    return [part] if part in known.extras(known.project()) else []


def groups_of(part: str) -> list[str]:
    """Return the dependency groups that a part installs, with the groups that they include."""
    groups = known.project()["dependency-groups"]
    if part not in groups:
        return []
    included = [e["include-group"] for e in groups[part] if not isinstance(e, str)]
    return [part, *(g for inner in included for g in groups_of(inner))]


def requirements(part: str) -> list[Requirement]:
    """Return the requirements that a part declares."""
    parts = known.declared(known.project())
    # The messages of linters depend on the newest types of other packages, so only the linters are
    # at their lowest version. The site is built without the package.
    alone = part in ("lint", "docs")
    names = groups_of(part) if alone else [known.CORE, *extras_of(part), *groups_of(part)]
    return [r for name in names for r in parts.get(name, [])]


def parts(kind: str) -> list[str]:
    """Return the parts to test. The lowest versions are also tested for each part alone."""
    alone = [known.CORE, *known.extras(known.project())] if kind == "lowest" else []
    return [*alone, EVERY, "test", "lint", "docs"]


def harness_commands(part: str) -> Iterator[str]:
    """Yield the commands of a user that test a part."""
    if part == "ray":  # ray has neither a backend nor a format, so test its effect on the rest
        file = "{root}/tests/cluster/test_on_ray.py"
        yield f"python -m pytest -q -W default -p no:cacheprovider {file}"
        return
    if part == "data":
        yield "harness train vae --backend numpy --epochs 1"
        return
    every = ["numpy", "torch", "jax", "keras", "keras-torch", "keras-jax"]
    backends = every if part == EVERY else BACKENDS.get(part, ["numpy"])
    chosen = f"--backend {','.join(backends)}"
    # Each part alone is checked in full. All parts together are checked only for compatibility.
    specs = " ".join(f"lesson6/{s}" for s in SPECS if part != EVERY or TRAINED.endswith(s))
    few = " --check values,training,pipeline" if part == EVERY else ""
    yield f"harness check {specs} {chosen} --path native,equations{few}"
    for name in backends:
        yield (
            f"harness train {TRAINED} --backend {name} --text text.txt --epochs 1 "
            f"--weights {name}.safetensors"
        )
    weights = f"{backends[0]}.safetensors"
    yield f"harness generate {TRAINED} --weights {weights} --prompt the --length 20 {chosen}"
    if "report" in extras_of(part):
        yield "harness check lesson6/three_char --backend numpy --html page.html"
    for name in (n for n in extras_of(part) if n in FORMATS):
        made = f"made_{name}.{FORMATS[name]}"
        yield f"harness export {TRAINED} --weights {weights} --to {name} --output {made}"
        yield (
            f"harness import {TRAINED} {made} --from {name} --like {weights} "
            f"--weights again_{name}.safetensors"
        )
    if part == EVERY:
        # The exporter to ONNX of torch needs onnx and onnxscript that fit each other.
        file = "{root}/tests/checking/test_own_model_paths.py"
        yield f"python -m pytest -q -W default -p no:cacheprovider {file}"
        return
    timed = "--mode train --path native --rounds 1 --records bench.json"
    yield f"harness bench lesson6/three_char {chosen} {timed}"
    yield "python -m pytest_benchmark compare bench.json"
    yield "harness compare bench.json bench.json"
    yield "harness report bench.json -o speeds.html"
    yield (
        f"python -m pytest -p no:cacheprovider --pyargs harness.suite --backend {backends[0]} "
        "--harness-spec lesson6/three_char"
    )


def commands(part: str) -> list[str]:
    """Return the commands to run in the environment of a part; ``{root}`` is the checkout."""
    if part == "lint":
        return [
            "ruff check {root}",
            "ruff format --check {root}",
            "mypy",
            "pre-commit validate-config {root}/.pre-commit-config.yaml",
        ]
    if part == "docs":
        return ["python -m sphinx -q -W --keep-going -c {root}/docs/site {root} site"]
    if part == "test":
        names = (
            "language/test_expressions",
            "program/test_flops",
            "convert/test_onnx_operators",
            "language/test_notebook_helpers",
            "report/test_report_browser",
            "api/test_results",
        )
        files = " ".join(f"{{root}}/tests/{name}.py" for name in names)
        return [
            f"python -m pytest -q -W default -n 2 {files}",
            "python -m build --no-isolation --outdir built {root}",
        ]
    return list(harness_commands(part))


def make(folder: Path, part: str, kind: str, python: str) -> str:
    """Make an environment with a part of the project; return ``passed``, or the error."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    needed = requirements(part)
    pins = {r.name: str(known.lowest(r)) for r in needed} | LATER.get(part, {})
    wanted = [f"{r.name}=={pins[r.name]}" if kind == "lowest" else str(r) for r in needed]
    (folder / "run").mkdir()
    (folder / "run/wanted.txt").write_text("\n".join(wanted), encoding="utf-8")
    pip = "pip install --quiet --disable-pip-version-check"
    return run(folder, f"{pip} --requirement wanted.txt --editable {{root}}")


def installed(folder: Path, part: str) -> tuple[str, dict[str, str]]:
    """Return the version of Python, and the installed versions of a part's requirements."""
    names = sorted({r.name for r in requirements(part)}, key=str.lower)
    code = (
        "import json, platform, sys; from importlib.metadata import distributions; "
        "plain = lambda name: name.lower().replace('_', '-'); "
        "found = {plain(d.metadata['Name']): d.version for d in distributions()}; "
        "own = {n: found[plain(n)] for n in sys.argv[1:] if plain(n) in found}; "
        "print(json.dumps([platform.python_version(), own]))"
    )
    command = [str(folder / "bin" / "python"), "-c", code, *names]
    done = subprocess.run(command, check=True, capture_output=True)
    python, found = json.loads(done.stdout)
    return python, found


def run(folder: Path, command: str) -> str:
    """Run a program of the environment; return ``passed``, or the error."""
    program, *rest = (word.format(root=known.ROOT) for word in command.split())
    place = folder / "run"
    (place / "text.txt").write_text("what is here is a text of few words; " * 80, encoding="utf-8")
    try:
        done = subprocess.run(
            [str(folder / "bin" / program), *rest],
            cwd=known.ROOT if program == "mypy" else place,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    if done.returncode == 0:
        return "passed"
    return f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-1500:]}"


def attempt(part: str, kind: str, python: str) -> known.Run:
    """Test a part, and store the outcome in the record."""
    with tempfile.TemporaryDirectory(prefix="harness-versions-") as temporary:
        folder = Path(temporary) / "venv"
        results = [{"command": "pip install", "result": make(folder, part, kind, python)}]
        version, found = installed(folder, part)
        for command in commands(part) if known.passed({"commands": results}) else ():
            result = run(folder, command)
            shown = command.format(root=".")
            click.echo(f"{kind} {part}, Python {version}: {shown}: {result}")
            results.append({"command": shown, "result": result})
    outcome = {"set": kind, "part": part, "python": version, "versions": found, "commands": results}
    known.keep(outcome)
    return outcome


def summary(outcome: known.Run) -> str:
    """Return a line about a run: the part, the versions, and whether everything passed."""
    found = ", ".join(f"{name} {version}" for name, version in outcome["versions"].items())
    wrong = [c for c in outcome["commands"] if c["result"] != "passed"]
    verdict = "; ".join(f"{c['command']}: {c['result']}" for c in wrong) or "passed"
    return f"{outcome['set']} {outcome['part']}, Python {outcome['python']}, {found}: {verdict}"


@click.group()
def main() -> None:
    """Test dependency versions; the commands are described in the module."""


def _try(names: Sequence[str], kind: str, python: str) -> None:
    possible = parts("lowest")
    wrong = [name for name in names if name not in possible]
    if wrong:
        raise click.UsageError(f"no part {wrong[0]!r}; there are {', '.join(possible)}")
    if shutil.which(python) is None:
        raise click.UsageError(f"there is no interpreter {python!r} to make environments with")
    outcomes = [attempt(part, kind, python) for part in names or parts(kind)]
    for outcome in outcomes:
        click.echo(summary(outcome))
    if not all(map(known.passed, outcomes)):
        raise click.ClickException("not all of these versions work")


@main.command()
@click.argument("part", nargs=-1)
@click.option("--python", default=sys.executable, help="Interpreter to make environments with.")
def lowest(part: tuple[str, ...], python: str) -> None:
    """Test the lowest versions that pyproject.toml allows."""
    _try(part, "lowest", python)


@main.command()
@click.argument("part", nargs=-1)
@click.option("--python", default=sys.executable, help="Interpreter to make environments with.")
def newest(part: tuple[str, ...], python: str) -> None:
    """Test the newest available versions."""
    _try(part, "newest", python)


@main.command()
def show() -> None:
    """Print what was tested, with the verdicts."""
    for outcome in known.read_record():
        click.echo(summary(outcome))


@main.command()
def tables() -> None:
    """Write the table of docs/versions.md from the record."""
    declared, runs = known.project(), known.read_record()
    page = known.ROOT / "docs/versions.md"
    rows = known.with_rows(page.read_text(encoding="utf-8"), declared, runs)
    page.write_text(rows, encoding="utf-8")


@main.command()
def constraints() -> None:
    """Write the versions of the environment that runs this script."""
    known.CONSTRAINTS.write_text(known.constraints(), encoding="utf-8")


if __name__ == "__main__":
    main()
