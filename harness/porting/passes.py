"""The passes that simplify a traced graph, in order."""

from __future__ import annotations

from dataclasses import replace

from harness.porting.attention import AttentionLayers, drop_mask_casts, fold_scales
from harness.porting.attention_equations import (
    drop_shifts,
    move_unit_axes,
    recognise_attention,
)
from harness.porting.constants import drop_negations, join_masks, recognise_constants
from harness.porting.graph import ModelGraph
from harness.porting.integers import write_integers_as_floats
from harness.porting.loops import expand_loops
from harness.porting.padding import join_padding
from harness.porting.recognise import (
    recognise_functions,
    recognise_layers,
    recognise_rotary,
    split_tied_bias,
)
from harness.porting.recurrent import RecurrentLayers
from harness.porting.repeats import find_repeats
from harness.porting.rewriting import Calls
from harness.porting.shape_rules import (
    channels_last,
    drop_broadcasts,
    drop_gathers,
    move_reshapes,
    select_rows,
    share_concatenations,
)

PASSES = (
    join_padding,
    drop_shifts,
    select_rows,
    recognise_constants,
    drop_gathers,
    drop_mask_casts,
    join_masks,
    drop_negations,
    write_integers_as_floats,
    recognise_rotary,
    recognise_functions,
    recognise_layers,
    split_tied_bias,
    channels_last,
    # The second time joins reshapes that the first time has moved.
    move_reshapes,
    move_reshapes,
    # Permutations may be neighbours only now.
    channels_last,
    drop_broadcasts,
    move_unit_axes,
    move_reshapes,
    recognise_attention,
    # The keys of an attention are permuted again.
    channels_last,
    fold_scales,
    share_concatenations,
)


def simplify(graph: ModelGraph) -> ModelGraph:
    """Return an equivalent graph with fewer and simpler calls."""
    calls = Calls(graph)
    calls.drop_unused()
    rules = (expand_loops, RecurrentLayers(), *PASSES, AttentionLayers(graph.sizes))
    for rule in rules:
        calls.rewrite(rule)
        calls.drop_unused()
    graph = replace(graph, calls=tuple(calls.by_name.values()), outputs=calls.outputs)
    return find_repeats(graph)
