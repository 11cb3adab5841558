"""The backend ``array-api-strict``, which rejects every call that the Python array API standard
does not define.

The standard has no automatic differentiation, so the harness derives gradients from the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from harness.extend import Array, Backend, Table, hookimpl


class ArrayApiStrict(Backend):
    """The implementation of the backend ``array-api-strict``."""

    name = "array-api-strict"

    def __init__(self) -> None:
        import array_api_strict

        self.xp = array_api_strict

    @cached_property
    def primitives(self) -> Table:
        from .primitives import PRIMITIVES

        return PRIMITIVES

    def versions(self) -> Mapping[str, str]:
        return {"array-api-strict": self.xp.__version__, **super().versions()}

    def settings(self) -> Mapping[str, str]:
        return {"standard": self.xp.__array_api_version__}

    def tensor(self, array: Array) -> Any:
        return self.xp.asarray(array)

    def numpy(self, tensor: Any) -> Array:
        return np.array(tensor)  # a copy, because later calls must not change it


@hookimpl
def harness_backend(name: str) -> Backend:
    return ArrayApiStrict()
