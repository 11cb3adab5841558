"""Functions and classes for writing a model as source code of a framework.

Generated code is checked before it is run.
"""

from __future__ import annotations

from harness.convert.source import document, forward, layers, literals
from harness.convert.source.common import (
    LayerBody,
    Template,
    common_code,
    ends_of,
    expand_dims,
    names_in,
    result_text,
    return_lines,
    swaps_first,
)
from harness.convert.source.composites import is_composite
from harness.convert.source.emitter import (
    INDENT,
    Code,
    Dialect,
    Emitter,
    bracketed,
    fill,
    listed,
    mapping,
)
from harness.convert.source.idioms import Idioms
from harness.convert.source.layers import LayerForm, Method, SourceModel
from harness.convert.source.literals import CONSTANTS, PYTHON, camel, identifier, unique, uses
from harness.convert.source.vetting import Words, vetted

__all__ = [
    "CONSTANTS",
    "INDENT",
    "PYTHON",
    "Code",
    "Dialect",
    "Emitter",
    "Idioms",
    "LayerBody",
    "LayerForm",
    "Method",
    "SourceModel",
    "Template",
    "Words",
    "bracketed",
    "camel",
    "common_code",
    "document",
    "ends_of",
    "expand_dims",
    "fill",
    "forward",
    "identifier",
    "is_composite",
    "layers",
    "listed",
    "literals",
    "mapping",
    "names_in",
    "result_text",
    "return_lines",
    "swaps_first",
    "unique",
    "uses",
    "vetted",
]
