"""What ``harness.run`` returns: the results of a pass that show themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.given.console import arrays_of, text_of
from harness.given.run import PassResult
from harness.output.notebook import frame, html_table
from harness.output.printing import shown

if TYPE_CHECKING:
    from pandas import DataFrame


class RunResult(PassResult):
    """The results of a pass."""

    def __repr__(self) -> str:
        groups = ("outputs", "state", "statistics", "metrics", "gradients")
        sizes = {group: len(getattr(self, group)) for group in groups}
        listed = [f"{group} {count}" for group, count in sizes.items() if count]
        listed += [] if self.loss is None else [f"loss {self.loss:.6g}"]
        return f"<RunResult: {', '.join(listed)}>"

    def __str__(self) -> str:
        """What ``harness run`` prints: a line for each array."""
        return shown(text_of(self, arrays_of(self)))

    def _repr_html_(self) -> str:
        rows = []
        for name, array in arrays_of(self).items():
            shape, value = "", f"{float(array):.9g}" if not array.shape else ""
            if array.shape:
                shape = " x ".join(map(str, array.shape))
            rows.append([name, shape, str(array.dtype), value])
        paths = ", ".join(f"{layer}: {path}" for layer, path in self.paths.items())
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return html_table(f"at {sizes}", ("array", "shape", "dtype", "value"), rows, paths)

    def to_pandas(self) -> DataFrame:
        """A row for each array: its name, shape and dtype, mean, least and largest entry.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame(
            {
                "array": name,
                "shape": array.shape,
                "dtype": str(array.dtype),
                "mean": float(array.mean()) if array.size else None,
                "least": float(array.min()) if array.size else None,
                "most": float(array.max()) if array.size else None,
            }
            for name, array in arrays_of(self).items()
        )
