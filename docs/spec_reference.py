"""Write docs/spec-reference.md from the schema of specs: ``python docs/spec_reference.py``.

Keys with their types, defaults, texts and examples come from the schema. Distributions, limits and
definitions come from the code and from ``specs/``. This file has the texts about operators and
built-in functions. ``tests/project/test_reference_page.py`` evaluates every example, and fails if
the page is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from harness.language import (
    base_models,
    document,
    evaluate,
    expressions,
    initializers,
    instances,
    names,
    noise,
    optimizer_schema,
    schema,
)
from harness.language.builtins import BUILTINS
from harness.program import dims

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/spec-reference.md"
DRAWN = ROOT / "specs/initializers.yaml"  # the descriptions of the distributions
LAW = dict[str, dict[str, float | str]]

# For each chapter of the page: the titles of its sections, and the pydantic model of each.
PARTS: dict[str, dict[str, type[BaseModel]]] = {
    "Every file": {"Every file": base_models.Documented},
    "A model": {
        "Model": schema.Model,
        "Input or target": schema.Input,
        "Layer entry": schema.LayerUse,
        "Optimizer entry": optimizer_schema.OptimizerUse,
        "Parameter group": optimizer_schema.ParameterGroup,
        "Training": schema.Training,
        "Phase": schema.Phase,
        "Text data": schema.Data,
        "Windows": schema.Windows,
        "Array from text": schema.Source,
        "Array data": schema.ArrayFile,
        "Data set": schema.DataSet,
    },
    "A layer": {
        "Layer": schema.Layer,
        "Parameter or statistic": schema.Parameter,
        "Parameter of a layer": schema.LayerParameter,
        "Constant": schema.ConstantArray,
        "Row group": schema.Rows,
        "State": schema.State,
        "Noise": schema.Noise,
        "Loop": schema.Scan,
        "Named loop": schema.NamedScan,
        "Unusual value": schema.Unusual,
    },
    "A function": {"Function": schema.Function},
    "A loss": {"Loss": schema.Loss, "Loss loop": schema.LossScan},
    "An optimizer": {
        "Optimizer": optimizer_schema.Optimizer,
        "Matrices": optimizer_schema.Matrices,
        "Shaped slot": optimizer_schema.ShapedSlot,
    },
}
TITLES = {form: title for forms in PARTS.values() for title, form in forms.items()}

# The operators of expressions, each with an example that a test evaluates.
OPERATORS = {
    "+ - * /": ("Elementwise arithmetic, with numpy's broadcasting.", "2 * x + x / 3"),
    "**": ("Power; the exponent is a number or an expression of numbers.", "x ** 2"),
    "@": ("Matrix product, as in `numpy.matmul`.", "x @ W"),
    "< <= > >= == !=": ("Comparison; the result is a condition (a boolean array).", "x > 0"),
    "& | ~": (
        "And, or and not of conditions; put each condition in brackets.",
        "(x > 0) & ~(x == 1)",
    ),
    "[...]": (
        "Index, slice, step or new axis. Bounds are integers or named sizes.",
        "x[:, ::-1, None]",
    ),
}
FUNCTIONS = {
    "exp": ("exponential function", "exp(x)"),
    "log": ("natural logarithm", "log(x)"),
    "tanh": ("hyperbolic tangent", "tanh(x)"),
    "sqrt": ("square root", "sqrt(x)"),
    "erf": ("error function", "erf(x)"),
    "sin": ("sine", "sin(x)"),
    "cos": ("cosine", "cos(x)"),
    "floor": ("round each entry down", "floor(x)"),
    "astype": ("convert indices or booleans to floats", "astype(mask)"),
    "arange": ("the integers from 0 to a size minus 1", "arange(time)"),
    "split": (
        "split one axis into several, in C order",
        "split(x, axis=-1, sizes=[2, half])",
    ),
    "merge": ("merge neighbouring axes into one axis", "merge(x, axes=[1, 2])"),
    "windows": (
        "sliding [windows](spec-convolutions.md) along axes",
        "windows(x, axes=[1], size=3, padding=1)",
    ),
    "overlap_add": (
        "the transpose of `windows`, which adds windows at their positions",
        "overlap_add(windows(x, axes=[1], size=3), axes=[1], size=3)",
    ),
    "repeat": ("each entry of an axis several times", "repeat(x, axis=1, times=3)"),
    "grouped_product": (
        "the product of windows and a kernel, separately for each group of channels",
        "grouped_product(x, W, groups=1)",
    ),
    "where": (
        "for each entry, the second argument if the first is true, else the third",
        "where(x > 0, x, 0)",
    ),
    "stop_gradient": ("the same value, treated as a constant by derivatives", "stop_gradient(x)"),
    "sum": ("the sum over all entries or over `axis`", "sum(x, axis=[0, 1], keepdims=true)"),
    "max": ("the largest entry; equal maxima share the gradient evenly", "max(x, axis=-1)"),
    "mean": ("the mean over all entries or over `axis`", "mean(x)"),
    "var": (
        "the biased variance, divided by the number of entries",
        "var(x, axis=-1, keepdims=true)",
    ),
    "concat": ("join arrays along an axis", "concat([x, x], axis=-1)"),
    "cumsum": ("the running sum along an axis", "cumsum(x, axis=1)"),
    "sort": ("sort along an axis, with NaN last", "sort(x, axis=-1, descending=true)"),
    "argsort": (
        "the indices that sort an axis; equal entries keep their order",
        "argsort(x, axis=-1)",
    ),
    "argmax": (
        "the index of the largest entry; of equal entries, the first",
        "argmax(x, axis=-1)",
    ),
    "top_k": ("the k largest entries, and their indices", "top_k(x, 2, axis=-1)"),
    "take": ("select rows by index, as an embedding does", "take(table, i, axis=0)"),
    "take_along_axis": (
        "for each index, select one entry along an axis",
        "take_along_axis(x, argmax(x, axis=-1), axis=-1)",
    ),
    "segment_sum": (
        "add up rows with the same index",
        "segment_sum(W, arange(2 * half), axis=0)",
    ),
    "index": (
        "round floats down to indices, clipped to [0, size - 1]",
        "index(x, 5)",
    ),
    "one_hot": ("for each index, zeros with a 1 at this index", "one_hot(i, vocab)"),
    "expand_dims": ("insert an axis of length 1", "expand_dims(x, axis=0)"),
    "permute_dims": (
        "reorder the axes, as in a matrix transpose",
        "permute_dims(x, axes=[0, 2, 1])",
    ),
}
# Example values for the arguments of distributions.
ARGUMENTS = {"value": 0.1, "low": -0.05, "high": 0.05, "std": 0.02, "fan": "features", "keep": 0.9}
LIMITS = {
    "size of a file": f"{document.MAX_BYTES >> 20} MiB",
    "keys and values of a file": f"{document.MAX_NODES:,}",
    "nested levels of a file": document.MAX_DEPTH,
    "characters of a block of equations": f"{expressions.MAX_BLOCK:,}",
    "characters of an equation": f"{expressions.MAX_LINE:,}",
    "nested levels of brackets": expressions.MAX_NESTING,
    "values in the equations of a model": f"{evaluate.MAX_VALUES:,}",
    "nested levels of layers": instances.MAX_NESTED,
    "layers of a model": f"{instances.MAX_LAYERS:,}",
    "characters of a name": names.LONGEST,
    "axes of a value": dims.MOST_AXES,
    "terms of a size that is a sum": dims.MOST_TERMS,
    "factors of a size that is a product": dims.MOST_FACTORS,
}
HEAD = """# Reference of the spec language

This page lists every key of a spec with type, default and example, then operators, definitions
that ship, and limits. The [tutorial](spec-tutorial.md) introduces the language, and the
[overview](spec-language.md) lists the pages by task. `harness schema KIND` prints the keys as a
JSON Schema for editors. `python docs/spec_reference.py` generates this page.

In the type of a key, `|` means "or", and `{name: text}` is a map from names of your choice to
texts. *Axes* are a list of lengths: sizes, numbers, and their sums and products. In this list,
`...` stands for any number of axes. A *distribution* is one of the [initial
values](#initial-values) or, for noise, one of the [noises](#noises).
"""


def flow(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").replace("'...'", "...")


def anchor_of(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def type_text(annotation: Any, limits: Iterable[Any] = ()) -> str:
    """Return the type of a key as text, e.g. "number | name"."""
    if any(isinstance(one, AfterValidator) for one in limits):
        return "name"
    if get_origin(annotation) is Annotated:
        inner, *limits = get_args(annotation)
        return type_text(inner, limits)
    for one in limits:
        if isinstance(one, FieldInfo):
            return type_text(annotation, one.metadata)
    if get_origin(annotation) in (Union, UnionType):
        members = [one for one in get_args(annotation) if one is not NoneType]
        if LAW in members:
            members = [one for one in members if one not in (LAW, str)]
            return " | ".join(["distribution", *map(type_text, members)])
        lists = [one for one in members if one in get_args(schema.PerAxis)]
        texts = [type_text(one) for one in members if one not in lists]
        return " | ".join(dict.fromkeys(texts + ["list with an entry per axis"] * bool(lists)))
    if annotation == base_models.Axes:
        return "axes"
    if get_origin(annotation) is Literal:
        return " | ".join(f"`{one}`" for one in get_args(annotation))
    if get_origin(annotation) is dict:
        return f"{{name: {type_text(get_args(annotation)[1])}}}"
    if get_origin(annotation) is list:
        return f"list of {type_text(get_args(annotation)[0])}s"
    if annotation in TITLES:
        title = TITLES[annotation]
        return f"[{title.lower()}](#{anchor_of(title)})"
    words = {str: "text", int: "integer", float: "number", bool: "boolean", Any: "number or list"}
    return words[annotation] + _limit(limits)


def _limit(limits: Iterable[Any]) -> str:
    parts = []
    for one in limits:
        match one:
            case annotated_types.Ge(ge):
                parts.append(f"≥ {ge}")
            case annotated_types.Gt(gt):
                parts.append(f"> {gt}")
            case annotated_types.Lt(lt):
                parts.append(f"< {lt}")
    return " and".join(f" {part}" for part in parts)


def keys(form: type[BaseModel]) -> Iterator[str]:
    """Yield the keys of a pydantic model as lines of a list, without keys of its base class."""
    above = form.__bases__[0]
    inherited = getattr(above, "model_fields", {})
    for name, field in form.model_fields.items():
        if name in inherited:
            continue
        (example,) = field.examples or ()
        kind = type_text(field.annotation, field.metadata)
        if field.is_required():
            kind += ", required"
        elif field.default not in (None, {}, []):
            kind += f", default `{flow(field.default)}`"
        yield f"- `{name}` ({kind}): {field.description} (`{name}: {flow(example)}`)."
    if inherited and above is not base_models.Documented:
        title = TITLES[above].lower()
        yield f"- the keys listed under [{title}](#{anchor_of(title)})"
    if form.model_config.get("extra") == "allow":
        yield "- a value for any attribute of the definition"


def definitions(folder: str, *, meaning: bool = True) -> Iterator[str]:
    """Yield a line for each definition in a folder: its name, attributes and start of summary."""
    for path in sorted((ROOT / "specs" / folder).glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = ", ".join(
            name if value == "size" else f"{name}={flow(value)}"
            for name, value in content.get("attributes", {}).items()
        )
        shown = f" (`{given}`)" if given else ""
        yield f"- `{path.stem}`{shown}" + (f": {_start(content['summary'])}" if meaning else "")


def _start(summary: str) -> str:
    """Return a short summary as it is. Return the first sentence of a long summary; if this is long
    too, cut it at a comma."""
    words = summary.split()
    sentence = " ".join(words) if len(words) <= 18 else re.split(r"(?<=[.;:]) ", summary)[0]
    short = re.match(r"(?:\S+ ){8,}?\S*?,(?= )", sentence)
    long = len(sentence.split()) > 16
    return (short[0] if long and short else sentence).rstrip(",;:.") + "."


def called(name: str, arguments: Iterable[str]) -> str:
    """Return a distribution with example arguments, as written in a spec."""
    given = {one: ARGUMENTS[one] for one in arguments}
    return flow({name: given}) if given else name


def _unsigned(text: str) -> str:
    """Return a text without citations such as " (Author 2015)"."""
    return re.sub(r" \([A-Z][^()]*\d{4}\)", "", text)


def page() -> str:
    """Return the text of docs/spec-reference.md."""
    if missing := set(FUNCTIONS) ^ set(BUILTINS):
        raise SystemExit(
            f"docs/spec_reference.py and the built-in functions differ: {sorted(missing)}"
        )
    lines = [HEAD]
    for chapter, forms in PARTS.items():
        lines += [f"## {chapter}", ""]
        for title, form in forms.items():
            lines += [*([f"### {title}", ""] if title != chapter else []), *keys(form), ""]
    lines += ["## Operators", "", "| operator | meaning | example |", "|---|---|---|"]
    for name, (meaning, example) in OPERATORS.items():
        shown = " ".join(f"`{one}`" for one in name.replace("|", "\\|").split())
        lines.append(f"| {shown} | {meaning} | `{example}` |")
    lines += ["", "## Built-in functions", ""]
    lines += [f"- `{name}`: {text} (`{one}`)." for name, (text, one) in FUNCTIONS.items()]
    lines += [
        "",
        "## Functions",
        "",
        "`harness explain gelu` prints the equations of `gelu`.",
        "",
    ]
    lines += [*definitions("functions"), "", "## Layers", ""]
    lines += [
        "Each use of a layer must set the attributes without a default. `heads` is the number of\n"
        "attention heads, `head` their width, `wide` the width of the hidden layer, and `keep`\n"
        "is 1 minus the dropout rate.",
        "",
    ]
    lines += [*definitions("layers"), "", "## Losses and metrics", ""]
    lines += [*definitions("losses"), "", "## Optimizers", ""]
    lines += [
        "The page [Optimizers](spec-optimizers.md#optimizers-that-ship) lists matching framework "
        "optimizers.",
        "",
    ]
    lines += definitions("optimizers", meaning=False)
    lines += ["", "## Initial values", ""]
    for name, text in yaml.safe_load(DRAWN.read_text(encoding="utf-8")).items():
        example = called(name, initializers.argument_names(name))
        lines.append(f"- `{example}`: {_unsigned(str(text))}")
    lines += ["", "## Noises", "", "| distribution | arguments | example |", "|---|---|---|"]
    for name, given in noise.DISTRIBUTIONS.items():
        shown = ", ".join(one if v is None else f"{one} {v:g}" for one, v in given.items())
        example = called(name, [one for one in given if one in ARGUMENTS])
        lines.append(f"| `{name}` | {shown} | `{example}` |")
    lines += ["", "## Limits", "", "| what | at most |", "|---|---:|"]
    lines += [f"| {what} | {limit} |" for what, limit in LIMITS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
