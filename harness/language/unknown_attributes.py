"""What to write in place of attributes that people know from frameworks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.errors import did_you_mean

# What frameworks call an attribute, and what it is called here.
CALLED: Mapping[str, str] = {
    **dict.fromkeys(("lr", "rate", "step_size"), "learning_rate"),
    **dict.fromkeys(("eps", "fuzz"), "epsilon"),
    **dict.fromkeys(
        ("out_features", "hidden_size", "embedding_dim", "output_dim", "out_channels"), "units"
    ),
    **dict.fromkeys(("filters", "features", "d_model", "num_units", "width"), "units"),
    **dict.fromkeys(("num_embeddings", "vocab_size"), "rows"),
    **dict.fromkeys(("num_heads", "n_heads", "nhead"), "heads"),
    **dict.fromkeys(("head_dim", "key_dim", "head_size"), "head"),
    **dict.fromkeys(("kernel_size", "filter_size", "pool_size"), "kernel"),
    "strides": "stride",
    "dilation_rate": "dilation",
    "num_groups": "groups",
    "nonlinearity": "activation",
    "negative_slope": "slope",
    "decay": "weight_decay",
}
# What frameworks give as a share of all that this attribute is the rest of.
REST_OF: Mapping[str, str] = dict.fromkeys(
    ("rate", "p", "prob", "drop_rate", "dropout", "dropout_rate", "drop_prob"), "keep"
)
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(
        ("in_features", "input_size", "in_channels", "input_dim", "normalized_shape"),
        "the shape of what comes in says it",
    ),
    "betas": "give beta_1 and beta_2",
    **dict.fromkeys(
        ("bias", "use_bias"),
        "a layer without a bias is a definition of its own, such as 'dense_without_bias'",
    ),
    **dict.fromkeys(("dropout", "p", "rate"), "name a layer 'dropout' whose 'keep' is 1 - rate"),
    **dict.fromkeys(
        ("num_layers", "n_layers", "depth"),
        "'repeat: depth' makes several layers, one behind the other",
    ),
    **dict.fromkeys(
        ("return_sequences", "return_state", "batch_first", "time_major"),
        "the definition says what it takes and gives: see 'harness explain LAYER'",
    ),
    "bidirectional": "bidirectional_lstm, bidirectional_gru_reset_after and, for rows that end "
    "before others, masked_bidirectional_lstm ship; of another layer name one for each way, and "
    "give 'reverse' of the input to one of them",
}

# What another definition has.
OF_OTHERS: Mapping[str, str] = {
    "momentum": "the optimizer with one is 'sgd_momentum'",
    "weight_decay": "the optimizer with one is 'adamw'",
}


def instead(name: str, declared: Collection[str], value: object) -> str:
    """What an attribute that is not declared may have been meant to be: ``; here it is 'x'``."""
    rest = REST_OF.get(name)
    if rest in declared and isinstance(value, int | float) and 0 <= value <= 1:
        return f"; write {rest}: {1 - value:g} ({rest} is 1 - {name})"
    if CALLED.get(name) in declared:
        return f"; here it is {CALLED[name]!r}"
    hint = INSTEAD.get(name) or OF_OTHERS.get(name)
    return f"; {hint}" if hint else did_you_mean(name, declared)
