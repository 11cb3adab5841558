"""JAX functions to port."""

import jax
import jax.numpy as jnp


def mlp(params, x):
    h = jax.nn.gelu(x @ params["in"]["W"] + params["in"]["b"])
    h = jnp.tanh(h @ params["mid"]["W"] + params["mid"]["b"])
    return {"logits": jax.nn.log_softmax(h @ params["out"]["W"] + params["out"]["b"])}


def _dense(key, rows, units):
    kernel = jax.random.normal(key, (rows, units)) / rows**0.5
    return {"W": kernel, "b": jnp.full(units, 0.1)}


def mlp_params(key):
    keys = jax.random.split(key, 3)
    return {
        "in": _dense(keys[0], 12, 16),
        "mid": _dense(keys[1], 16, 8),
        "out": _dense(keys[2], 8, 5),
    }


def refused(params, x):
    h = jnp.fft.fft(x).real @ params["in"]["W"]
    return jax.lax.while_loop(lambda v: v.sum() < 10, lambda v: v + 1, h)


def rnn_params(key):
    return {"x": _dense(key, 5, 8), "h": jax.random.normal(key, (8, 8)) / 3, "y": _dense(key, 8, 3)}


def rnn(params, x):
    def step(h, row):
        h = jnp.tanh(row @ params["x"]["W"] + params["x"]["b"] + h @ params["h"])
        return h, h @ params["y"]["W"] + params["y"]["b"]

    last, rows = jax.lax.scan(step, jnp.zeros((x.shape[0], 8)), x.swapaxes(0, 1))
    return {"rows": rows.swapaxes(0, 1), "mean": last}


def operators_params(key):
    keys = jax.random.split(key, 4)
    return {
        "table": jax.random.normal(keys[0], (7, 6)),
        **{f"scale_{n}": jax.random.normal(keys[1], (6,)) + n for n in range(3)},
        "stack": {
            "kernels": jax.random.normal(keys[2], (2, 6, 6)) / 2.4,
            "heads": jax.random.normal(keys[3], (6, 2, 3)),
        },
    }


@jax.jit
def _difference(batch, scale):
    return batch["second"] * scale - batch["first"]


def jitted(params, second, first):
    return _difference({"second": second, "first": first}, params["scale_0"])


@jax.jit
def operators(p, x, ids):
    """Return many operators of x [batch, time, 6] and ids [batch, time]."""
    return {
        **_elementwise(x),
        **_reductions(x),
        **_shapes(x),
        **_norms(x, p),
        **_products(x, p["stack"]),
        "chosen": jnp.where(x > 0.5, 2 * x, jnp.clip(x, -0.4, 0.4)) * (1.0 - (ids[..., None] > 3)),
        "rows": p["table"][ids] + jnp.take(p["table"], ids, axis=0),
        "hot": jax.nn.one_hot(ids, 7) @ p["table"],
        "position": x + jnp.arange(x.shape[1])[:, None] * 0.1,
    }


def _elementwise(x):
    act = jax.nn
    return {
        "curves": jnp.exp(-jnp.abs(x)) + jnp.sin(x) * jnp.cos(x) + jax.scipy.special.erf(x),
        "roots": jnp.log1p(x**2) + jnp.sqrt(1 + x * x) + jax.lax.rsqrt(1 + x**2) + jnp.expm1(x),
        "steps": jnp.floor(x) + jnp.sign(x) + jnp.maximum(x, 0.3) - jnp.minimum(x, 0.1) + x**3,
        "smooth": act.elu(x) + act.softplus(x) + act.sigmoid(x) + act.silu(x) + act.mish(x),
        "bent": act.relu(x) + act.leaky_relu(x) + act.hard_swish(x) + act.relu6(x),
        "gelus": act.gelu(x) + act.gelu(x, approximate=False) + act.soft_sign(x),
        "others": act.hard_sigmoid(x) + act.celu(x, 1.5) - act.tanh(x),
    }


def _reductions(x):
    return {
        "reduced": x.mean(-1) + x.sum(-1) + x.max(-1) - x.min(-1) + jnp.var(x, -1),
        "sums": jax.nn.logsumexp(x, -1, keepdims=True) + jnp.cumsum(x, 1),
        "soft": jax.nn.softmax(x, 1) + jax.nn.log_softmax(x, -1),
        "best": jnp.tanh(jnp.argmax(x, -1) * 1.0),
    }


def _shapes(x):
    pairs = jnp.stack([x[..., 0::2], x[..., 1::2]], -1).reshape(x.shape)
    turned = jnp.swapaxes(x, 1, 2)
    return {
        "slices": jnp.concatenate([x[:, :, :2], x[..., 4:], x[..., ::3]], -1),
        "last": x[:, -1] + x[:, 0, ::-1],
        "pairs": pairs + jnp.flip(x, 1),
        "cube": turned[:, :, None, :] * turned[:, None],
    }


def _norms(x, p):
    center = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((center**2).mean(-1, keepdims=True) + 1e-5)
    rms = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
    centred = center / deviation * p["scale_0"] + p["scale_1"]
    return {"centred": centred, "scaled": x * rms * p["scale_2"]}


def _products(x, p):
    h = jnp.tanh(jnp.tanh(x @ p["kernels"][0]) @ p["kernels"][1])
    q = jnp.einsum("btf,fhd->bthd", x, p["heads"])
    scores = jnp.einsum("bthd,bshd->bhts", q, q)
    return {"stacked": h, "heads": jnp.einsum("bhts,bshd->bthd", jnp.tanh(scores), q)}


def selections_params(key):
    rows = jax.random.normal(key, (13, 6))
    return {"table": rows[:7], "square": rows[7:] / 2.4}


def windows_params(key):
    kernel = jax.random.normal(key, (3, 3, 4, 5)) / 6
    return {"kernel": kernel, "first": jnp.transpose(kernel, (3, 2, 0, 1)) / 2}


def selections(p, x):
    """Return selections, rounded numbers and sums of x [batch, time, 6]."""
    top, places = jax.lax.top_k(x, 2)
    masked = jnp.where(jnp.triu(jnp.ones((x.shape[1],) * 2), 1) > 0, -jnp.inf, x @ x.mT)
    positive = x > 0.3
    count = jnp.maximum(positive.sum(1, keepdims=True), 1)
    near = jnp.round(x) + jnp.ceil(x) + x % 0.7
    return {
        "rows": p["table"][places] * top[..., None],
        "ordered": jnp.sort(x) + jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
        "least": p["table"][jnp.argmin(x, -1)],
        "masked": jax.nn.softmax(masked) + jnp.tril(x @ x.mT, -1),
        "counted": (x * positive).sum(1, keepdims=True) / count * positive.any(-1, keepdims=True),
        "curves": jnp.tan(x) / 10 + jnp.sinh(x) + jnp.exp2(x) + jnp.cbrt(x) + near,
        "moved": jnp.flip(x, (1, 2)) + jnp.roll(x, 1, 1) + jnp.tile(x[..., :3], 2),
        "changed": x.at[:, :, 0].set(1.0).at[:, :, 1:3].add(x[:, :, :2]).at[..., -1].multiply(2.0),
        "sums": jnp.cumprod(x, -1) + jax.lax.cumsum(x, 1, reverse=True),
        "padded": jnp.pad(x, ((0, 0), (0, 0), (1, 2)), constant_values=3.0),
        "total": jax.nn.logsumexp(x, (1, 2)) + jnp.linalg.norm(x, axis=(1, 2)) + x.prod(-1).sum(1),
        "looped": jax.lax.fori_loop(0, 3, lambda _, h: jnp.tanh(h @ p["square"]), x),
    }


def windows(p, x):
    """Return convolutions and pools of x [batch, 5, 6, 4]."""
    lax, first = jax.lax, jnp.moveaxis(x, -1, 1)
    image, square = ("NHWC", "HWIO", "NHWC"), (1, 2, 2, 1)
    window = lambda start, reduce: lax.reduce_window(x, start, reduce, square, square, "SAME")  # noqa: E731
    ones = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, square, square, "SAME")
    return {
        "first": lax.conv(first, p["first"], (1, 1), "SAME"),
        "computed": lax.conv_general_dilated(
            x, jnp.tanh(p["kernel"]), (2, 2), "SAME", dimension_numbers=image
        ),
        "wider": lax.conv_transpose(x, p["kernel"] * 2, (2, 2), "SAME", dimension_numbers=image),
        "valid": lax.conv_transpose(x, p["kernel"] * 3, (2, 1), "VALID", dimension_numbers=image),
        "greatest": lax.reduce_window(first, -jnp.inf, lax.max, (1, 1, 2, 3), (1,) * 4, "VALID"),
        "pools": window(0.0, lax.add) / ones + window(jnp.inf, lax.min) + window(0.0, lax.add),
        "resized": jax.image.resize(x, (x.shape[0], 10, 12, 4), "nearest"),
    }


def dropping_params(key):
    keys = jax.random.split(key, 2)
    return {"up": _dense(keys[0], 6, 8), "down": _dense(keys[1], 8, 5)}


def _dropped(params, x, drop):
    h = drop(jnp.tanh(x @ params["up"]["W"] + params["up"]["b"]))
    return h @ params["down"]["W"] + params["down"]["b"]


def dropping(params, x, key=None):
    def drop(h):
        return jnp.where(jax.random.bernoulli(key, 0.8, h.shape), h / 0.8, 0)

    return _dropped(params, x, (lambda h: h) if key is None else drop)


def multiplying(params, x, rng, train=False):
    def drop(h):
        return h * jax.random.bernoulli(jax.random.split(rng)[0], 0.8, h.shape) / 0.8

    return _dropped(params, x, drop if train else lambda h: h)


def always(params, x, key):
    return _dropped(params, x, lambda h: h * jax.random.bernoulli(key, 0.8, h.shape) / 0.8)


def noisy(params, x, key=None):
    def shake(h):
        return h + 0.1 * jax.random.normal(key, h.shape)

    return _dropped(params, x, (lambda h: h) if key is None else shake)
