"""What to write in place of names that people know from Python and from frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.errors import Place, did_you_mean
from harness.spec import schema
from harness.spec.library import Library, content

INSTEAD: Mapping[str, str] = {
    "reshape": "split(x, axis=-1, sizes=[a, b]) cuts an axis, merge(x, axes=[1, 2]) joins axes",
    "view": "split(x, axis=-1, sizes=[a, b]) cuts an axis, merge(x, axes=[1, 2]) joins axes",
    "flatten": "merge(x, axes=[1, 2]) joins axes",
    "iota": "write arange(time)",
    "range": "write arange(time)",
    "tril": "compare indices, as in arange(time)[None, :] <= arange(time)[:, None]",
    "std": "write sqrt(var(x, axis=-1))",
    "swish": "it is silu(x)",
    "logical_and": "write (a < b) & (c < d)",
    "logical_or": "write (a < b) | (c < d)",
    "logical_not": "write ~(a < b)",
    **dict.fromkeys(
        ("int", "long", "to_int"),
        "index(x, below) makes indices of floats: the whole part of x, within 0 and below - 1",
    ),
    "cast": "write astype(i) for an index or a condition as floats",
    "einsum": "write it with @, permute_dims, expand_dims and sum",
    "dot": "write a @ b",
    "matmul": "write a @ b",
    "bmm": "write a @ b, which takes leading axes as batches",
    "transpose": "write permute_dims(x, axes=[1, 0])",
    "permute": "write permute_dims(x, axes=[1, 0])",
    "swapaxes": "write permute_dims(x, axes=[0, 2, 1])",
    "unsqueeze": "write expand_dims(x, axis=0)",
    "squeeze": "an index drops an axis, as in x[..., 0]",
    "cat": "write concat([a, b], axis=-1)",
    "concatenate": "write concat([a, b], axis=-1)",
    "stack": "write concat of expand_dims, as in concat([expand_dims(a, axis=0), "
    "expand_dims(b, axis=0)], axis=0)",
    "clip": "write minimum(maximum(x, low), high)",
    "clamp": "write minimum(maximum(x, low), high)",
    "min": "write -max(-x)",
    "prod": "write exp(sum(log(x))) for numbers above 0",
    "power": "write a ** b",
    "pow": "write a ** b",
    "square": "write x ** 2",
    "norm": "write sqrt(sum(x ** 2, axis=-1))",
    "relu6": "write minimum(maximum(x, 0), 6)",
    "mish": "write x * tanh(softplus(x))",
    "log1p": "write log(1 + x)",
    "expm1": "write exp(x) - 1",
    "round": "write floor(x + 0.5)",
    "argmin": "write argmax(-x)",
    "triu": "compare indices, as in arange(time)[None, :] >= arange(time)[:, None]",
    "zeros": "numbers take any shape, as in 0 * x",
    "ones": "numbers take any shape, as in 0 * x + 1",
    "len": "an axis is as long as its name says: write the name",
    "shape": "an axis is as long as its name says: write the name",
    "pad": "write concat([0 * x[:, :1], x], axis=1), and for the index 0 of n "
    "concat([index(0 * astype(i[:, :1]), n), i], axis=1)",
    "roll": "write concat([x[:, -1:], x[:, :-1]], axis=1)",
    "tile": "axes of length 1 repeat by themselves; write concat([x, x], axis=0) for others",
    **dict.fromkeys(
        ("repeat", "upsample", "resize", "interpolate", "upsampling2d"),
        "write merge(concat([x[:, :, None], x[:, :, None]], axis=2), axes=[1, 2]) for entries of "
        "axis 1 twice",
    ),
    "isnan": "write ~(x == x)",
    "mse": "the loss is squared_error(prediction, target)",
    "topk": "write values, indices = top_k(x, 2)",
    "index_select": "write take(x, i, axis=0)",
    "scatter": "segment_sum(x, i) adds the rows of x that have one index",
    "index_add": "segment_sum(x, i) adds the rows of x that have one index",
    "rsqrt": "write 1 / sqrt(x)",
    "reciprocal": "write 1 / x",
    "erfc": "write 1 - erf(x)",
    "float": "write astype(i) for an index or a condition as floats",
    "linspace": "write astype(arange(width)) / (width - 1) for numbers from 0 to 1",
    "prelu": "write where(x > 0, x, slope * x) for a parameter slope of a layer",
    "diag": "write one_hot(arange(width), width) * x for a matrix with x on its diagonal",
    **dict.fromkeys(
        ("fft", "dft", "dct"),
        "it has no complex numbers: write a product with cos(...) and one with sin(...) of "
        "astype(arange(n))",
    ),
    **dict.fromkeys(("vmap", "map"), "operations take any leading axes: write it without"),
    **dict.fromkeys(
        ("scan", "fori_loop", "while_loop"), "a layer of your own has a 'scan' over the steps"
    ),
    "bincount": "write segment_sum(0 * astype(i) + 1, i)",
    **dict.fromkeys(
        ("segment_mean", "scatter_mean"),
        "write segment_sum(x, i) / maximum(segment_sum(0 * x + 1, i), 1)",
    ),
    **dict.fromkeys(
        ("segment_max", "scatter_max"),
        "write max(where(i[None, :] == arange(n)[:, None], x[None, :], -1e30), axis=1)",
    ),
    **dict.fromkeys(
        ("nonzero", "unique", "boolean_mask"),
        "shapes do not depend on values: multiply by astype(condition), or use where",
    ),
    **dict.fromkeys(
        ("searchsorted", "bucketize", "digitize"),
        "write sum(astype(x[..., None] > edges), axis=-1), and index of it",
    ),
    "unfold": "write windows(x, axes=[1, 2], size=[3, 3])",
    "im2col": "write windows(x, axes=[1, 2], size=[3, 3])",
    "fold": "write overlap_add(y, axes=[1, 2], size=[3, 3])",
    "col2im": "write overlap_add(y, axes=[1, 2], size=[3, 3])",
    "conv": "name a layer 'conv2d' or 'conv1d' under 'layers', or write windows(...) and a product",
    "max_pool2d": "name a layer 'max_pool' under 'layers', or write max(windows(...), axis=[3, 4])",
    "avg_pool2d": "name a layer 'avg_pool' under layers, or write mean(windows(...), axis=[3, 4])",
    "gather": "write take(x, i, axis=0) for whole rows, take_along_axis(x, i) for single entries",
    "cumprod": "write exp(cumsum(log(x), axis=1)) for numbers above 0",
    "tan": "write sin(x) / cos(x)",
    "sinh": "write (exp(x) - exp(-x)) / 2",
    "cosh": "write (exp(x) + exp(-x)) / 2",
    "log2": "write log(x) / log(2)",
    "log10": "write log(x) / log(10)",
    **dict.fromkeys(
        ("arcsin", "arccos", "arctan", "asin", "acos", "atan"),
        "it has no inverses of sin, cos and tan",
    ),
    "isinf": "write (x == 2 * x) & (x != 0)",
    **dict.fromkeys(("mod", "fmod", "remainder"), "write a - b * floor(a / b)"),
    "floor_divide": "write floor(a / b)",
    "ceil": "write -floor(-x)",
    "outer": "write a[:, None] * b[None, :]",
    "diff": "write x[:, 1:] - x[:, :-1]",
    "any": "write max(astype(a < b), axis=-1) > 0.5",
    "all": "write sum(astype(~(a < b)), axis=-1) == 0",
    "zeros_like": "write 0 * x",
    "ones_like": "write 0 * x + 1",
    "size": "an axis is as long as its name says: write the name",
    "normalize": "write x / sqrt(sum(x ** 2, axis=-1, keepdims=true))",
    "cosine_similarity": "write sum(a * b, axis=-1) / sqrt(sum(a ** 2, axis=-1) * "
    "sum(b ** 2, axis=-1))",
    **dict.fromkeys(
        ("random", "rand", "randn", "normal", "bernoulli"), "declare it under 'noise', by its law"
    ),
    **dict.fromkeys(("hardtanh", "hard_tanh"), "write minimum(maximum(x, -1), 1)"),
    "glu": "write x[..., :half] * sigmoid(x[..., half:])",
    **dict.fromkeys(("logsigmoid", "log_sigmoid"), "write -softplus(-x)"),
    **dict.fromkeys(("l1", "l1_loss", "mae"), "write abs(prediction - target)"),
    **dict.fromkeys(("nll", "nll_loss"), "the loss is sparse_cross_entropy(logits, target)"),
    **dict.fromkeys(("binary_cross_entropy", "bce"), "write softplus(logit) - target * logit"),
    "kl_divergence": "write sum(p * log(p / q), axis=-1)",
    **dict.fromkeys(
        ("attention", "scaled_dot_product_attention"),
        "write softmax(q @ permute_dims(k, axes=[0, 2, 1])) @ v",
    ),
    **dict.fromkeys(
        ("broadcast_to", "expand", "expand_as"),
        "axes of length 1 repeat by themselves: write x + 0 * y",
    ),
    **dict.fromkeys(("full", "full_like"), "numbers take any shape, as in 0 * x + 3"),
    "masked_fill": "write where(mask, -1e30, x)",
    "flip": "write x[:, ::-1]",
    "detach": "write stop_gradient(x)",
    "logaddexp": "write maximum(a, b) + softplus(-abs(a - b))",
    "eye": "write one_hot(arange(width), width)",
    **dict.fromkeys(
        ("huber", "huber_loss", "smooth_l1", "smooth_l1_loss"),
        "write where(abs(x) <= 1, 0.5 * x ** 2, abs(x) - 0.5)",
    ),
    **dict.fromkeys(
        ("pixel_shuffle", "depth_to_space"),
        "split(x, axis=-1, sizes=[2, 2, units]) cuts the channels, permute_dims and merge join "
        "them with rows and columns",
    ),
    "selu": "write 1.0507009873554805 * elu(x, alpha=1.6732632423543772)",
    "celu": "write alpha * elu(x / alpha)",
    "softsign": "write x / (1 + abs(x))",
    **dict.fromkeys(
        ("hardswish", "hard_swish", "hard_silu"), "write x * minimum(maximum(x + 3, 0), 6) / 6"
    ),
}


def as_attribute(name: str) -> str:
    """The same for an attribute, which names a function: what to write stands in one; "" where
    nothing is known."""
    told = f"; {INSTEAD[name]}" if name in INSTEAD else ""
    own = f" in a function of your own, functions/{name}.yaml in a folder of --specs"
    return told + own * told.startswith("; write ")


def unknown_function(library: Library, name: str, known: Iterable[str], place: Place) -> str:
    """What to say of a function that there is none of, asked for at a place: what to write, where
    that is known, or where the file is that was meant."""
    if name in INSTEAD:
        return f"the language has no function {name!r}: {INSTEAD[name]}"
    if library.has("layer", name):
        declared = content(library.find("layer", name), schema.Layer).attributes
        sizes = "".join(f", {n}: ..." for n, default in declared.items() if default == "size")
        return (
            f"{name!r} is a layer: name it under 'layers', as in "
            f"'{name}_1: {{layer: {name}{sizes}}}', and call that name"
        )
    known = tuple(known)
    files = (library.misplaced(kind, name, place) for kind in ("function", "loss"))
    hint = next(filter(None, files), did_you_mean(name, known))
    return f"unknown function {name!r}{hint} (known: {', '.join(known)})"
