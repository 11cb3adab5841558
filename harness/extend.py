"""All that a backend or a format may import of the harness, in one place.

A plugin is a module with :func:`hookimpl` functions named as in
:class:`harness.runtime.hookspecs.Hooks`, and a class of :class:`Backend`, of :class:`Format`, or
both, whose methods say what each is given, in which shapes and dtypes, and what it may raise.
``docs/adding-a-backend.md`` and ``docs/formats.md`` go through one of each, line by line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import HarnessError, UsageError, shorten
from harness.program import series
from harness.program.clipping import Clipping, clipping

# The program of a model.
from harness.program.dims import Dim, Shape
from harness.program.ir import (
    Block,
    Node,
    Phase,
    Port,
    Program,
    free_values,
    inline_calls,
    needed_nodes,
    walk_nodes,
)
from harness.program.leading_axes import leading_axes, lone_axes
from harness.program.passes.unroll import LONGEST_FUSED
from harness.program.permutations import inverse
from harness.program.plan import Plan
from harness.program.signature import (
    Mode,
    call_key,
    crossing_ports,
    local_of,
    local_shapes,
    owner_of,
)
from harness.program.updates import UpdateRule
from harness.program.windows import FramedAxis, framed_axes, order_of_taken, pads_of

# The backend and its offers.
from harness.runtime.backend import Backend
from harness.runtime.claimed_calls import VARIABLES
from harness.runtime.defaults import Measured, Probes
from harness.runtime.devices import card_of, device_names
from harness.runtime.executor import Call, Executor, in_turn
from harness.runtime.hookspecs import hookimpl
from harness.runtime.interpreter import Claimed, Line, Step, Table, Values, loop
from harness.runtime.layout import Layout
from harness.runtime.native import (
    Advance,
    Chain,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Tensors,
    WholeModel,
    calls_by_layer,
)
from harness.runtime.packing import FrozenZeros, Join, Packing, Part, Piece, Stack
from harness.runtime.precision import NARROW, host_dtype, narrow, rounded_to
from harness.runtime.session import Session

if TYPE_CHECKING:
    # Files of a framework: read with limits, held against the model, never run.
    from harness.convert.archive import DESCRIBED, Archive, Damaged, archive, reading
    from harness.convert.checked import FLOATS, Declared, bytes_of, read_arrays
    from harness.convert.formats import Exported, Format, Script
    from harness.convert.generated import run_file

    # A model as source code: the equations as expressions of a dialect, vetted before it is run.
    from harness.convert.source import document, forward, layers, literals
    from harness.convert.source.common import (
        LayerBody,
        common_code,
        ends_of,
        result_text,
        swaps_first,
    )
    from harness.convert.source.emitter import Dialect, Emitter
    from harness.convert.source.expression import Code, fill, listed
    from harness.convert.source.idioms import Idioms
    from harness.convert.source.layers import LayerForm, Method, SourceModel
    from harness.convert.source.names import CONSTANTS, PYTHON, camel, identifier, unique, uses
    from harness.convert.source.vetting import Words, vetted
    from harness.convert.source.wrapping import INDENT, bracketed, mapping
    from harness.files.atomic import whole
    from harness.files.user_file import MAX_WEIGHTS, opened, read_bytes

    # Models of users.
    from harness.runtime.own_model.contract import (
        ModelArray,
        Naming,
        OwnModel,
        OwnModels,
        Placing,
        reshaped,
    )
    from harness.runtime.own_model.source import (
        ModelFile,
        made,
        names_taken,
        parameters_of,
        sizes_taken,
    )
else:
    # The same, read when it is first asked for: only formats and models of users do, and every
    # worker of a backend would wait for it.
    _SOURCE, _OWN = "harness.convert.source", "harness.runtime.own_model"
    _LATE = {
        "harness.convert.archive": "DESCRIBED Archive Damaged archive reading",
        "harness.convert.checked": "FLOATS Declared bytes_of read_arrays",
        "harness.convert.formats": "Exported Format Script",
        "harness.convert.generated": "run_file",
        _SOURCE: "document forward layers literals",
        f"{_SOURCE}.common": "LayerBody common_code ends_of result_text swaps_first",
        f"{_SOURCE}.emitter": "Dialect Emitter",
        f"{_SOURCE}.expression": "Code fill listed",
        f"{_SOURCE}.idioms": "Idioms",
        f"{_SOURCE}.layers": "LayerForm Method SourceModel",
        f"{_SOURCE}.names": "CONSTANTS PYTHON camel identifier unique uses",
        f"{_SOURCE}.vetting": "Words vetted",
        f"{_SOURCE}.wrapping": "INDENT bracketed mapping",
        "harness.files.atomic": "whole",
        "harness.files.user_file": "MAX_WEIGHTS opened read_bytes",
        f"{_OWN}.contract": "ModelArray Naming OwnModel OwnModels Placing reshaped",
        f"{_OWN}.source": "ModelFile made names_taken parameters_of sizes_taken",
    }
    _HOMES = {name: module for module, names in _LATE.items() for name in names.split()}

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if home == _SOURCE:  # whose names are modules themselves
            found = import_module(f"{home}.{name}")
        else:
            found = getattr(import_module(home), name)
        globals()[name] = found
        return found


__all__ = [
    "CONSTANTS",
    "DESCRIBED",
    "FLOATS",
    "INDENT",
    "LONGEST_FUSED",
    "MAX_WEIGHTS",
    "NARROW",
    "PYTHON",
    "VARIABLES",
    "Advance",
    "Archive",
    "Array",
    "ArrayDict",
    "Arrays",
    "Backend",
    "Block",
    "Call",
    "Chain",
    "ClaimableCall",
    "Claimed",
    "Clipping",
    "Code",
    "Damaged",
    "Declared",
    "Dialect",
    "Dim",
    "Emitter",
    "Executor",
    "Exported",
    "F",
    "Format",
    "FramedAxis",
    "FrozenZeros",
    "Function",
    "GradientFunction",
    "HarnessError",
    "Idioms",
    "Join",
    "LayerBody",
    "LayerForm",
    "Layout",
    "Line",
    "Measured",
    "Method",
    "Mode",
    "ModelArray",
    "ModelFile",
    "Naming",
    "Native",
    "NativeOptimizer",
    "Node",
    "OwnModel",
    "OwnModels",
    "Packing",
    "Part",
    "Phase",
    "Piece",
    "Placing",
    "Plan",
    "Port",
    "Probes",
    "Program",
    "Script",
    "Session",
    "Shape",
    "SourceModel",
    "Stack",
    "Step",
    "Table",
    "Tensors",
    "UpdateRule",
    "UsageError",
    "Values",
    "WholeModel",
    "Words",
    "archive",
    "bracketed",
    "bytes_of",
    "call_key",
    "calls_by_layer",
    "camel",
    "card_of",
    "clipping",
    "common_code",
    "crossing_ports",
    "device_names",
    "document",
    "ends_of",
    "fill",
    "forward",
    "framed_axes",
    "free_values",
    "hookimpl",
    "host_dtype",
    "identifier",
    "in_turn",
    "inline_calls",
    "inverse",
    "layers",
    "leading_axes",
    "listed",
    "literals",
    "local_of",
    "local_shapes",
    "lone_axes",
    "loop",
    "made",
    "mapping",
    "names_taken",
    "narrow",
    "needed_nodes",
    "opened",
    "order_of_taken",
    "owner_of",
    "pads_of",
    "parameters_of",
    "read_arrays",
    "read_bytes",
    "reading",
    "reshaped",
    "result_text",
    "rounded_to",
    "run_file",
    "series",
    "shorten",
    "sizes_taken",
    "swaps_first",
    "unique",
    "uses",
    "vetted",
    "walk_nodes",
    "whole",
]
