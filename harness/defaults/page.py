"""The catalogue as a page of Markdown: ``docs/differences.md``."""

from __future__ import annotations

from collections.abc import Iterator

from harness.defaults.catalogue import DefaultEntry, catalogue, groups
from harness.output.markdown import escaped

TITLES = {
    "activations": "Activations",
    "layers": "Dense layers, embeddings and normalisation",
    "numbers": "Numbers",
    "recurrent": "Recurrent layers",
    "training": "Losses, optimizers and data",
}
OPENING = """\
# Where the frameworks' defaults differ, and what to set

{count} defaults in which numpy, torch, Keras and JAX (with optax) differ, or all of them from what
a paper or an older version does. Each was measured where a framework is in the first column:
`harness differences --run` measures it again on the versions that are installed, and says what has
changed. `keras` is Keras on TensorFlow; `keras-torch` and `keras-jax` have rows of their own where
the engine makes a difference.

```
harness differences                        # all of them
harness differences gru                    # those of a layer, a function, a loss or an optimizer
harness differences --between torch keras  # where these two differ
harness differences adam --run             # and whether the installed versions still do so
harness differences --json                 # for a program
```

How far apart such models come out is in [semantics.md](semantics.md). This page is made from
`specs/defaults/*.yaml` by `harness differences --print-markdown`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([OPENING.format(count=len(catalogue())), *_sections()])


def _sections() -> Iterator[str]:
    for group, entries in groups().items():
        yield f"## {TITLES[group]}\n"
        for name, entry in entries.items():
            yield from _entry(name, entry)


def _entry(name: str, entry: DefaultEntry) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{escaped(entry.parts)} To agree on: {escaped(entry.agree_on)}.\n"
    yield "| framework | does | set this |"
    yield "|---|---|---|"
    for framework, its in entry.frameworks.items():
        yield f"| {framework} | {escaped(its.does)} | {escaped(its.set)} |"
    elsewhere = f" {escaped(entry.elsewhere)}" if entry.elsewhere else ""
    layers = ", ".join(f"`{layer}`" for layer in entry.layers)
    yield f"\nOf {layers}. Apart: {escaped(entry.apart)}.{elsewhere} {_source(entry.source)}\n"


def _source(source: str) -> str:
    if source.startswith("docs/"):
        name = source.removeprefix("docs/")
        return f"[{name}]({name})"
    return f"[source]({source})"
