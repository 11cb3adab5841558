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
