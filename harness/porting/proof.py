"""The result of a port, and the lines that describe its proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.convert.agreement import Agreement
from harness.convert.run import Exporting
from harness.errors import several
from harness.oracle.tolerance import Deviation, digits, telling
from harness.porting.spec import PortedSpec
from harness.results.cell import CellResult
from harness.results.findings import PASSING, Finding
from harness.runtime.labels import backend_of

# The tensors that each check of a model compares.
ITEMS = {
    "inference": "outputs",
    "cotangent-gradients": "gradients of all weights and float inputs",
    "outputs": "outputs in training mode",
    "statistics": "moving statistics after a pass in training mode",
    "training-sgd": "weights after each of three steps of SGD",
    "training": "weights after each of three steps of Adam",
    "shapes": "outputs at other sizes",
    "saturation": "outputs at large values",
    "corners": "outputs where an activation has its corner",
}


@dataclass(frozen=True)
class Ported:
    """A port: the spec, its weights, and its proof.

    Attributes:
        name: The spec's name.
        spec: The spec and the map of names.
        label: The description of the model.
        against: The results of the comparison with the model, one per dtype.
        backends: The results of the backends.
        exports: The exports, by format.
        problems: A line for each comparison that does not agree.
        remarks: Sentences about parts of the model that the spec does not have.
        written: The names of the written files.
        batch: The comparison of one batch with the model at its own size and with its real weights.
    """

    name: str
    spec: PortedSpec
    label: str
    against: Sequence[CellResult]
    backends: Sequence[CellResult]
    exports: Mapping[str, Exporting]
    problems: Sequence[str]
    remarks: Sequence[str] = ()
    written: Sequence[str] = ()
    batch: Agreement | None = None

    @property
    def framework(self) -> str:
        """The framework of the model."""
        return backend_of(self.against[0].cell.backend) if self.against else ""

    @property
    def proved(self) -> bool:
        """True if every comparison agrees."""
        return not self.problems

    def proof_lines(self) -> list[str]:
        """Return a line for each comparison, with the digits of agreement."""
        lines = [
            f"{r.cell.backend}, {r.cell.dtype}: {_proof(r)}"
            for r in (*self.against, *self.backends)
        ]
        if self.batch is not None:
            lines.append(
                f"real weights, float32: one batch agrees to {self.batch.digits:.1f} digits"
            )
        lines += [
            f"code for {name}, {exported.dtype}: {_export_proof(exported)}"
            for name, exported in self.exports.items()
        ]
        return lines

    def proof_rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield a row for each item that was compared: what was compared with the spec, the dtype,
        the tensors, the number of comparisons, and the digits of agreement."""
        for result in self.against:
            for finding in result.findings:
                worst = _worst_shown(finding, result.cell.dtype)
                if worst is not None and finding.check in ITEMS:
                    count = finding.comparisons - finding.held
                    shown = f"{digits(worst.error):.1f}"
                    label = f"the model {result.cell.backend.partition('@')[2]}"
                    yield label, result.cell.dtype, ITEMS[finding.check], str(count), shown
        for result in self.backends:
            count = sum(f.comparisons for f in result.findings)
            shown = str(result_digits(result) or "")
            yield result.cell.backend, result.cell.dtype, "all checks", str(count), shown
        pairs = [("the model with its real weights", "float32", "outputs of one batch", self.batch)]
        for name, exported in self.exports.items():
            about = f"code for {name}", exported.dtype
            pairs.append((*about, "outputs", exported.agreement))
            pairs.append((*about, "gradients of all weights", exported.gradients))
        for label, dtype, what, agreement in pairs:
            if agreement is not None:
                yield label, dtype, what, str(agreement.comparisons), f"{agreement.digits:.1f}"


def _proof(result: CellResult) -> str:
    count = sum(f.comparisons for f in result.findings)
    shown = result_digits(result)
    agrees = shown is not None and result.verdict in PASSING
    text = f"{result.verdict}{f' to {shown} digits' if agrees else ''}"
    left = f"; not compared: {', '.join(result.not_compared)}" if result.not_compared else ""
    return f"{text}, {several(count, 'comparison')}{left}"


def _export_proof(exported: Exporting) -> str:
    text = f"outputs agree to {exported.agreement.digits:.1f} digits"
    if exported.gradients is None:
        return f"{text}; no gradients"
    count = several(exported.gradients.comparisons, "weight")
    return f"{text}, gradients of {count} to {exported.gradients.digits:.1f}"


def export_problem(format_: str, exported: Exporting) -> str:
    """Return a line if exported code differs from the spec; otherwise an empty text."""
    pairs = {"outputs": exported.agreement, "gradients": exported.gradients}
    wrong = [f"{n} differ: {a.worst}" for n, a in pairs.items() if a and not a.agrees]
    doubt = f" ({exported.doubt})" if exported.doubt else ""
    return f"code for {format_}: {'; '.join(wrong)}{doubt}" if wrong else ""


def result_digits(result: CellResult) -> float | None:
    """Return the digits in which the worst tensor agrees. Ignore tensors in which rounding changes
    most digits. Return None if there are no other tensors."""
    dtype = result.cell.dtype
    errors = [w.error for f in result.findings if (w := _worst_shown(f, dtype)) is not None]
    return round(digits(max(errors)), 1) if errors else None


def _worst_shown(finding: Finding, dtype: str) -> Deviation | None:
    worst = finding.worst
    if worst is None or worst.telling or not worst.agrees:
        return worst
    # With an excuse, the tolerance of float32 applies to float64, in which no tensor is telling.
    return worst if finding.excuse or telling(worst.error, dtype) else None
