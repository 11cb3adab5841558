"""The definition of torch's batch normalisation, for specs of modules that use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.porting.sizes import TracedCall

# The shipped ``batch_norm`` moves its variance towards the biased variance of a batch, and torch's
# towards the sample variance. A call of torch's has this setting.
SETTING = "sample_variance"
NAME = "sample_batch_norm"
DEFAULTS: Mapping[str, Any] = {"epsilon": 1e-5, "momentum": 0.9}
# The lines of the definition after its first line, ``layer: NAME``. A comparison of each number
# with itself counts the rows of a batch.
LINES = """\
summary: Batch normalisation whose moving variance follows the sample variance of the batch.
source: torch.nn.BatchNorm2d.
inputs:
  x: [..., features]
attributes: {epsilon: 1.0e-5, momentum: 0.9}
parameters:
  gamma: {shape: [features], init: ones}
  beta: {shape: [features], init: zeros}
statistics:
  moving_mean: {shape: [features], init: zeros}
  moving_variance: {shape: [features], init: ones}
training: |
  count = sum(astype(x == x), axis=...)
  center = mean(x, axis=...)
  variance = mean((x - center) ** 2, axis=...)
  moving_mean = momentum * moving_mean + (1 - momentum) * center
  moving_variance = momentum * moving_variance + (1 - momentum) * variance * count / (count - 1)
  y = gamma * (x - center) / sqrt(variance + epsilon) + beta
inference: |
  y = gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta
output: y
""".splitlines()


def uses_sample_variance(calls: Iterable[TracedCall]) -> bool:
    """Return whether a call is torch's batch normalisation."""
    return any(SETTING in call.attributes.get("settings", {}) for call in calls)
