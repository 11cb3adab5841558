"""The loss of a ported model, for the comparison of optimizer steps."""

from __future__ import annotations

from dataclasses import replace

from harness.errors import UsageError, check_known
from harness.language.library import Library, content
from harness.language.model import load_spec
from harness.language.schema import Input, Loss
from harness.porting.spec import PortedSpec


def add_loss(spec: PortedSpec, name: str, loss: str) -> PortedSpec:
    """Return a spec with a shipped loss: its mean over the first output and a new target.

    Args:
        spec: The spec of a model.
        name: The name of the spec.
        loss: The name of the loss, such as ``sparse_cross_entropy``.

    Raises:
        UsageError: no loss has this name, the loss takes other inputs, or the spec has no output
            of floats with enough axes.
    """
    library = Library(())
    check_known("loss", loss, library.names("loss"))
    inputs = content(library.find("loss", loss), Loss).inputs
    program = load_spec(name, overrides={("model", name): spec.text}).program("inference")
    output = next((p for p in program.outputs if program.type_of(p).kind == "float"), None)
    if len(inputs) != 2 or output is None:
        raise UsageError(f"--loss {loss}: the loss must compare one output of floats with a target")
    shape = [str(dim) for dim in program.type_of(output).shape]
    entry = f"{{shape: [{', '.join(shape)}]}}"
    target_input = list(inputs.values())[1]
    if isinstance(target_input, Input) and target_input.index is not None:
        if not shape:
            raise UsageError(f"--loss {loss}: the output {output.name} has no axis of classes")
        entry = f"{{shape: [{', '.join(shape[:-1])}], index: {shape[-1]}}}"
    names = {port.name for port in (*program.inputs, *program.outputs)}
    target = next(n for n in ("target", "target_of_loss") if n not in names)
    lines = f"targets:\n  {target}: {entry}\nloss: mean({loss}({output.name}, {target}))\n"
    head, definitions, rest = spec.text.partition("definitions:\n")
    return replace(spec, text=f"{head}{lines}{definitions}{rest}")
