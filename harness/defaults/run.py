"""Verification of the catalogue: each installed framework is measured in a separate process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.defaults.catalogue import Entries
from harness.defaults.service import DefaultsService
from harness.errors import EXIT_COULD_NOT_RUN, EXIT_FAILED, EXIT_PASSED
from harness.runtime.hookspecs import Measured
from harness.runtime.plugins import available
from harness.worker.answers import Forms
from harness.worker.launch import Launch
from harness.worker.remote import call_worker
from harness.worker.worker import Worker

SERVICE = "harness.defaults.service:handler"
TIMEOUT = 300.0
FORMS = Forms(DefaultsService)
Verdict = Literal["as written", "changed", "error", "not measured", "not run"]


@dataclass(frozen=True)
class Measurement:
    """The measured default of one catalogue entry on one framework. ``found`` is the measured
    value, and ``verdict`` says whether it equals the catalogue's value. ``detail`` is the text of
    an error."""

    entry: str
    framework: str
    verdict: Verdict
    found: Measured | None = None
    detail: str = ""


@dataclass
class Verification:
    """The results of all measurements.

    ``versions`` has the package versions of each framework that ran. ``troubles`` says for each
    other framework why it could not run.
    """

    measurements: list[Measurement] = field(default_factory=list)
    versions: dict[str, Mapping[str, str]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """The exit code: 0 if all measured defaults are as in the catalogue, 1 if one differs, 3 if
        one could not be measured."""
        verdicts = {measurement.verdict for measurement in self.measurements}
        if "changed" in verdicts:
            return EXIT_FAILED
        all_measured = verdicts == {"as written"}
        return EXIT_PASSED if all_measured else EXIT_COULD_NOT_RUN


def verify(
    entries: Entries, frameworks: Sequence[str], tell: Callable[[str], None] = lambda name: None
) -> Verification:
    """Measure the catalogue's entries on each framework in turn.

    ``tell`` is called with the name of a framework before it is measured.
    """
    verification = Verification()
    installed = available()
    for framework in frameworks:
        names = [name for name, entry in entries.items() if framework in entry.frameworks]
        if not names:
            continue
        tell(framework)
        if framework not in installed:
            _add_not_run(verification, framework, names, f"no backend {framework!r} is installed")
            continue
        with Worker(Launch(framework, service=SERVICE)) as worker:
            outcome = call_worker(worker, FORMS, "measure", {"names": names}, TIMEOUT)
            if not outcome.ok:
                _add_not_run(verification, framework, names, outcome.cause)
                continue
            versions = dict((worker.hello or {})["versions"])
        verification.versions[framework] = versions
        verification.measurements += [
            _compare_measured(entries, name, framework, outcome.value, versions) for name in names
        ]
    return verification


def _add_not_run(
    verification: Verification, framework: str, names: Sequence[str], reason: str
) -> None:
    verification.troubles[framework] = reason
    verification.measurements += [
        Measurement(name, framework, "not run", detail=reason) for name in names
    ]


def _compare_measured(
    entries: Entries,
    name: str,
    framework: str,
    answers: Mapping[str, Mapping[str, Measured]],
    versions: Mapping[str, str],
) -> Measurement:
    answer = answers.get(name)
    if answer is None:
        return Measurement(
            name, framework, "not measured", detail="the backend does not measure it"
        )
    if "value" not in answer:
        return Measurement(name, framework, "error", detail=str(answer.get("error", "no value")))
    value = answer["value"]
    facts = entries[name].frameworks[framework]
    if facts.holds(value, versions):
        return Measurement(name, framework, "as written", value)
    written = facts.expected(versions)
    return Measurement(
        name, framework, "changed", value, f"{value!r}, but the catalogue has {written!r}"
    )
