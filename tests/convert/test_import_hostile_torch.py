"""State_dicts of strangers: no pickle is run, and no tensor leads out of its storage."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import Evil, Reader, bomb, listed, nothing_ran, reader, rewritten
from wording import Wording


@pytest.fixture(scope="module")
def torch_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("torch", "pt", tmp_path_factory)


def _pickle(data: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(parts: dict[str, bytes]) -> None:
        (name,) = (n for n in parts if n.endswith("/data.pkl"))
        parts[name] = data

    return change


PICKLES = {
    "reduce": pickle.dumps(Evil(), 2),
    "protocol 0": pickle.dumps(Evil(), 0),
    "protocol 5": pickle.dumps(Evil(), 5),
    "in a dict": pickle.dumps({"out.bias": Evil()}, 2),
    "as a key": pickle.dumps({Evil: 1}, 2),
    "inst": b"(S'touch PWNED'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch PWNED'\no.",
    "newobj": b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch PWNED\x85\x81.",
    "eval": b"\x80\x02cbuiltins\neval\nX\x0f\x00\x00\x00__import__('os')\x85R.",
    "getattr": b"\x80\x02cbuiltins\ngetattr\n.",
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "torch.load": b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
    "extension": b"\x80\x02\x82\x01.",
    "attributes": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "long memo": b"\x80\x02}" + b"r\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
    "text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "numpy": pickle.dumps(np.zeros(3), 2),
    "nothing": b"",
    "a number": pickle.dumps(3, 2),
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", PICKLES)
def test_no_pickle_is_run(
    name: str, torch_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = rewritten(torch_reader.path, _pickle(PICKLES[name]), tmp_path / "m.pt")
    told = torch_reader.refusal(path)
    # A memo of any size is no more than a number.
    assert ("does not fit" if "memo" in name else "cannot be read as a state_dict: ") in told
    path.write_bytes(PICKLES[name])
    wording.line(torch_reader.refusal(path), "state_dict")
    assert nothing_ran(tmp_path)


def saved(reader: Reader, path: Path, change: Callable[[dict[str, Any]], None], **how: Any) -> Path:
    import torch

    state = torch.load(reader.path, weights_only=True)
    change(state)
    torch.save(state, path, **how)
    return path


def _tensors() -> dict[str, tuple[Callable[[Any, Any], Any], str]]:
    return {
        "expanded": (lambda t, x: x.new_ones(1).expand(30000, 30000), "found [30000, 30000]"),
        "float16": (lambda t, x: x.half(), "float16; allowed"),
        "int": (lambda t, x: x.int(), "int32; allowed"),
        "long": (lambda t, x: x.long(), "int64; allowed"),
        "bool": (lambda t, x: x.bool(), "bool; allowed"),
        "complex": (lambda t, x: x.cfloat(), "complex64; allowed"),
        "bfloat16": (lambda t, x: x.bfloat16(), "bfloat16; allowed"),
        "sparse": (lambda t, x: x.to_sparse(), "cannot be read as a state_dict: it names"),
        "meta": (lambda t, x: x.to("meta"), "cannot be read as a state_dict: "),
        "no tensor": (lambda t, x: 3, "a dict with int, not named tensors"),
        "part of a large one": (
            lambda t, x: t.zeros(1 << 25)[: x.numel()].view(x.shape),
            "save a clone",
        ),
    }


@pytest.mark.parametrize("name", _tensors())
def test_tensors_of_other_kinds_are_refused(
    name: str, torch_reader: Reader, tmp_path: Path
) -> None:
    import torch

    made, words = _tensors()[name]

    def change(state: dict[str, Any]) -> None:
        state["out.weight"] = made(torch, state["out.weight"])

    assert words in torch_reader.refusal(saved(torch_reader, tmp_path / "m.pt", change))


def test_views_and_transposed_tensors_are_read(torch_reader: Reader, tmp_path: Path) -> None:
    import torch

    def change(state: dict[str, Any]) -> None:
        weight = state["out.weight"]
        state["out.weight"] = torch.nn.Parameter(weight.t().contiguous().t())
        both = torch.cat([state["out.bias"], state["out.bias"]])
        state["out.bias"] = both[len(both) // 2 :]

    path = saved(torch_reader, tmp_path / "m.pt", change)
    found = torch_reader.caller.read(path, torch_reader.case)
    wanted = torch_reader.caller.read(torch_reader.path, torch_reader.case)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_state_dict_of_an_old_form_is_refused(
    torch_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = saved(
        torch_reader, tmp_path / "m.pt", lambda s: None, _use_new_zipfile_serialization=False
    )
    wording.line(torch_reader.refusal(path), "state_dict")


def _edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        # The offset, the shape and the strides of the first tensor (86, 42), whose storage has
        # 3,612 numbers.
        (lambda d: _edited(d, b"QK\x00KVK*\x86", b"QK\x01KVK*\x86"), ""),
        (lambda d: _edited(d, b"QK\x00KVK*\x86", b"QJ\xff\xff\xff\xffKVK*\x86"), ""),
        (lambda d: _edited(d, b"K*K\x01\x86", b"M\xff\xffK\x01\x86"), ""),
        (lambda d: _edited(d, b"K*K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86"), ""),
        (lambda d: _edited(d, b"K*K\x01\x86", b"K*\x85"), "torch"),
        (lambda d: _edited(d, b"M\x1c\x0e", b"J\xff\xff\xff\x7f"), ""),
    ],
)
def test_no_tensor_leads_out_of_its_storage(
    edit: Callable[[bytes], bytes],
    words: str,
    torch_reader: Reader,
    tmp_path: Path,
    wording: Wording,
) -> None:
    def change(parts: dict[str, bytes]) -> None:
        (name,) = (n for n in parts if n.endswith("/data.pkl"))
        # Without the memo, bytes that mean the same are the same.
        parts[name] = edit(pickletools.optimize(parts[name]))

    path = rewritten(torch_reader.path, change, tmp_path / "m.pt")
    wording.line(torch_reader.refusal(path), words)


def test_a_storage_that_unpacks_to_far_more_is_refused(
    torch_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(torch_reader.path) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith("/data/0"):
                new.writestr(info.filename, old.read(info))
            else:
                bomb(new, info.filename, 1 << 28)
    assert path.stat().st_size < 4 << 20
    wording.line(torch_reader.refusal(path), "268,435,456 ... 14,448")


def test_a_list_of_a_million_parts_is_refused(
    torch_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = listed(tmp_path / "m.pt")
    wording(torch_reader.refusal(path))
