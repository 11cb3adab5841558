"""The page of ``harness explain --html``: a picture of a model, readable without scripts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from harness.checking.explain_definition import Definitions
from harness.checking.model_boxes import Box, draw_boxes
from harness.language.lower_model import OWN_LAYER
from harness.language.model import Spec
from harness.output.templates import html_templates, page_style
from harness.program.ir import Program


def model_page(
    spec: Spec,
    program: Program,
    ports: Mapping[str, Sequence[str]],
    paths: Mapping[str, Mapping[str, str] | str],
    facts: Sequence[str],
    text: str,
) -> str:
    """Return the HTML of the page.

    Args:
        spec: The model.
        program: Its program in training.
        ports: Lines about the inputs, targets, state and outputs.
        paths: The code of each layer by backend, or a text that says why it is unknown.
        facts: Short texts for the top of the page, such as sizes.
        text: Everything that ``harness explain`` prints.
    """
    drawn = draw_boxes(spec, program, paths)
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return (
        html_templates("harness.checking")
        .get_template("model_page.html.j2")
        .render(
            name=spec.name,
            summary=spec.model.summary,
            source=spec.model.source,
            facts=facts,
            backends=[*paths],
            unknown={name: found for name, found in paths.items() if isinstance(found, str)},
            inputs=[*ports["inputs"], *ports["state"]],
            outputs=ports["outputs"],
            targets=ports["targets"],
            drawn=drawn,
            outputs_at=_find_end(drawn, {port.name for port in program.outputs}),
            equations=spec.model.equations.rstrip("\n"),
            definitions=_describe_definitions(spec, drawn),
            text=text,
            css=Markup(page_style() + style),
            version=version("backend-comparison-harness"),
        )
    )


def _find_end(boxes: Sequence[Box], outputs: Collection[str]) -> int:
    """Return the number of boxes up to the last one that makes an output of the model. The other
    boxes compute the loss and the metrics."""
    makes = [any(line.partition(" ")[0] in outputs for line in box.outputs) for box in boxes]
    return len(boxes) - [*reversed(makes), True].index(True)


def _describe_definitions(spec: Spec, boxes: Sequence[Box]) -> dict[str, str]:
    """Return the text of ``harness explain`` for each layer and loss of the model."""
    kinds = {"definition": "layer", "layer": "layer", "loss": "loss"}
    used = {box.title: kinds[box.kind] for box in _walk(boxes) if box.kind in kinds and box.title}
    used.pop(OWN_LAYER, None)  # it stands for arrays that belong to no layer
    return {
        name: Definitions(name, spec.library, (kind,)).text() for name, kind in sorted(used.items())
    }


def _walk(boxes: Sequence[Box]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from _walk(box.inner)
