"""A reader for the tensors of a ``.pt`` file that runs no code of torch or of the file.

``torch.save`` writes an archive: a pickle that describes the tensors, and a file with the bytes of
each storage. :class:`_Descriptions` reads the pickle and accepts a state_dict only. ``torch.load``
accepts more kinds of files, and crafted files have made it run code. Shapes, strides and storage
sizes are checked before any storage is read.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from harness.extend import Array
from harness.extend.formats import DESCRIBED, Archive, Damaged, Declared

# The name of a storage class in pickles -> its numpy dtype, or torch's name if numpy lacks it.
STORAGES: Mapping[str, str] = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "torch.bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# The pickle opcodes that a state_dict needs. None of them creates objects of arbitrary classes.
OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL),
    *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND),
    *(pickle.APPENDS, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT),
    *(pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPERSID, pickle.REDUCE, pickle.BUILD),
)
# The largest size of a storage: four times the bytes of the model's tensors, but at least this many
# bytes.
SPARE = 1 << 26


@dataclass(frozen=True)
class Storage:
    """A storage (memory of tensors) in a ``.pt`` file: ``count`` numbers, whose bytes are in the
    file ``data/KEY`` of the archive."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A description of a tensor in a state_dict: a view of a storage, with offset, shape and
    strides."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _StorageType:
    """A stand-in for the torch storage class that a pickle names; it has only a dtype and no
    methods."""

    dtype: str


def tensors(archive: Archive, model_bytes: int) -> dict[str, Declared]:
    """Return a dictionary from the keys of a state_dict to its tensors. ``model_bytes`` is the size
    of the model's tensors, which limits what is read from the file.

    Raises:
        Damaged: the file does not contain a state_dict.
    """
    pickle_names = [name for name in archive.names if name.endswith("/data.pkl")]
    if len(pickle_names) != 1 or pickle_names[0].count("/") != 1:
        raise Damaged("it is not an archive written by torch.save")
    folder = pickle_names[0].partition("/")[0]
    state = _read_pickle(archive.part(pickle_names[0], DESCRIBED))
    byteorder = f"{folder}/byteorder" in archive.names and archive.part(f"{folder}/byteorder", 16)
    order: Literal["<", ">"] = ">" if byteorder == b"big" else "<"

    def loader(tensor: Tensor) -> Callable[[], Array]:
        def load() -> Array:
            dtype = np.dtype(tensor.storage.dtype)
            size = tensor.storage.count * dtype.itemsize
            if size > max(4 * model_bytes, SPARE):
                raise Damaged(
                    f"a tensor is a view of a storage of {size:,} bytes; save a clone of the tensor"
                )
            data = archive.part(f"{folder}/data/{tensor.storage.key}", size)
            return _view(np.frombuffer(data, dtype.newbyteorder(order)), tensor)

        return load

    return {key: Declared(t.shape, t.storage.dtype, loader(t)) for key, t in state.items()}


def _view(numbers: Array, tensor: Tensor) -> Array:
    """Return a tensor as a view of its storage, whose numbers are ``numbers``. :func:`_tensor` has
    checked the bounds.

    Raises:
        Damaged: the storage has a wrong size.
    """
    if numbers.size != tensor.storage.count:
        raise Damaged(f"data/{tensor.storage.key} has {numbers.size:,} numbers")
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, tensor.storage.dtype)
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )
    return view.astype(tensor.storage.dtype)


def _read_pickle(data: bytes) -> dict[str, Tensor]:
    """Return a dictionary from key to the tensor that a pickle describes.

    Raises:
        Damaged: the pickle is damaged, or does not describe a state_dict.
    """
    try:
        content = _Descriptions(io.BytesIO(data)).load()
    except Damaged:
        raise
    # Reading a damaged pickle can raise any exception.
    except Exception as error:
        raise Damaged(f"its pickle is damaged: {type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise Damaged(f"it contains {_with_article(content)}, not named tensors")
    other_types = sorted({type(v).__name__ for v in content.values() if not isinstance(v, Tensor)})
    if other_types or not all(isinstance(key, str) for key in content):
        content_types = ", ".join(other_types or ["keys that are not strings"])
        raise Damaged(f"it contains a dict with {content_types}, not named tensors")
    return content


def _with_article(value: Any) -> str:
    return f"a {type(value).__name__}"


class _Descriptions(pickle._Unpickler):
    """An unpickler that accepts only descriptions of tensors, and calls no function that the file
    names. It is written in Python, because the C unpickler allocates as much memory as a pickle
    requests."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        raise Damaged(f"it names {module}.{name}, which a plain state_dict never does")

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", _StorageType() as kind, str() as key, str(), int() as count) if (
                count >= 0
            ):
                return Storage(kind.dtype, key, count)
        raise Damaged("its pickle describes a storage differently from torch.save")

    def load_build(self) -> None:
        """Skip attributes that the pickle sets on a dict, such as ``_metadata`` of a state_dict."""
        self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict):
            raise Damaged("its pickle sets attributes of an object that is not a dict")

    dispatch[pickle.BUILD[0]] = load_build


def _tensor(
    storage: Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any
) -> Tensor:
    counts = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise Damaged("its pickle describes a tensor differently from torch.save")
    if any(type(n) is not int or n < 0 for n in counts):
        raise Damaged("a tensor has negative sizes")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.count:
        raise Damaged("a tensor reaches beyond the end of its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Tensor, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Damaged("its pickle describes a parameter differently from torch.save")
    return data
