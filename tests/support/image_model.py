"""A small model that calls every image layer."""

from pathlib import Path

IMAGES = """\
model: images
summary: Every layer of images once.
source: Made for tests.
sizes: {half: 4, classes: 3}
inputs:
  x: {shape: [batch, 2 * half, 2 * half, 2]}
layers:
  conv: {layer: conv2d, units: 4, kernel: 3, padding: 1, stride: 2, activation: tanh}
  top: {layer: max_pool, window: 3, stride: 1, padding: 1}
  most: {layer: max_pool_first, window: [2, 3], stride: 1, padding: [0, [2, 0]]}
  inner: {layer: avg_pool, window: 3, stride: 1, padding: same, count_padding: false}
  deep: {layer: conv2d, units: 8, groups: 4, kernel: 2, dilation: 2, padding: 1}
  even: {layer: avg_pool, window: 2, stride: 1}
  tall: {layer: conv2d, units: 4, kernel: [3, 1], padding: [[1, 1], [0, 2]], groups: 2, bias: false}
  near: {layer: conv2d, units: classes, kernel: [3, 2], stride: [2, 1], padding: same}
  up: {layer: conv2d_transpose, units: 2, kernel: 3, stride: 2, padding: 1}
  line: {layer: conv1d, units: 3, kernel: 2, activation: relu}
  out: {layer: dense, units: classes}
equations: |
  wide = up(even(most(deep(top(inner(tall(conv(x))))))))
  large = repeat(resize_bilinear(near(x), tall=5, wide=3), axis=1, times=2)
  small = resize_nearest(large, tall=3, wide=7, centered=true)
  logits = out(mean(line(mean(wide, axis=2)), axis=1)) + mean(small, axis=[1, 2])
targets:
  target: {shape: [batch], index: classes}
loss: mean(sparse_cross_entropy(logits, target))
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""


def image_model(folder: Path) -> Path:
    """Write the model to a file in ``folder``, and return the file's path."""
    path = folder / "images.yaml"
    path.write_text(IMAGES, encoding="utf-8")
    return path
