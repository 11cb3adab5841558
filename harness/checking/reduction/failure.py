"""A pass that is wrong: its programs and numbers, at sizes that can be made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.checking.reproducer import Pass, Reproducer
from harness.errors import HarnessError, UsageError, shorten
from harness.files.kinds import GROUPS
from harness.language.size_expressions import FREE_SIZES
from harness.language.wellformed import check_program
from harness.oracle.patience import OracleFault
from harness.oracle.yardstick import Expected, Reference
from harness.program.dims import bind
from harness.program.ir import Port, Program
from harness.program.signature import result_ports
from harness.results.cell import Cell


@dataclass(frozen=True)
class Failure:
    """One pass on one backend."""

    cell: Cell
    training: Program
    inference: Program
    run: Pass

    @staticmethod
    def of(found: Reproducer) -> Failure:
        """That of a reproducer."""
        return Failure(found.cell, found.training, found.inference, found.run)

    @property
    def program(self) -> Program:
        """The program that the pass runs."""
        return self.training if self.run.phase == "training" else self.inference

    @property
    def free(self) -> dict[str, int]:
        """The sizes that the arrays decide: batch and time."""
        found: dict[str, int] = {}
        for group in ("inputs", "state", "targets"):
            for port in getattr(self.program, group):
                array = getattr(self.run.material, group).get(port.name)
                if array is not None:
                    shape = self.program.type_of(port).shape
                    bind(port.name, shape, array.shape, self.program.sizes, found)
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """All of them by name."""
        return {**self.free, **self.program.sizes}

    def expected(self) -> Expected:
        """What the oracle says of the pass.

        Raises:
            UsageError: it cannot run it: a program of a stranger may be anything.
            OracleFault: there is not the time or the memory.
        """
        try:
            reference = Reference(self.training, self.inference)
            expected = reference.expect(lambda session: [self.run.on(session)])
            expected.noise(self.cell.dtype)
        except (HarnessError, OracleFault):
            raise
        except Exception as error:
            raise UsageError(f"its program cannot be run: {shorten(str(error), 200)}") from error
        return expected


def resized(failure: Failure, name: str, size: int, *, first: bool) -> Failure | None:
    """A failure with another size, of the first or of the last numbers along it; None if that is
    no program, or wants more numbers than there are."""
    sizes = {**failure.sizes, name: size}
    programs = [failure.training, failure.inference]
    if any(name in program.structural for program in programs):
        return None
    if name not in FREE_SIZES:
        programs = [p.with_sizes(**{name: size}) if name in p.sizes else p for p in programs]
    try:
        for program in programs:
            check_program(program)
        arrays = {
            group: _cut(failure, group, getattr(failure.run.material, group), sizes, first)
            for group in GROUPS
        }
        along = failure.run.cotangents
        if along is not None:
            along = _cut_results(failure, along, sizes, first)
    except (HarnessError, ValueError):
        return None
    material = replace(failure.run.material, **arrays)
    run = replace(failure.run, material=material, cotangents=along)
    return replace(failure, training=programs[0], inference=programs[1], run=run)


def _cut(
    failure: Failure, group: str, arrays: ArrayDict, sizes: Mapping[str, int], first: bool
) -> ArrayDict:
    ports: dict[str, Port] = {}
    for program in (failure.inference, failure.training):
        ports |= {port.name: port for port in getattr(program, group)}
    found = {}
    for name, array in arrays.items():
        if name not in ports:
            continue
        type_ = failure.training.types.get(ports[name].value) or failure.program.type_of(
            ports[name]
        )
        cut = _part(array, tuple(dim.resolve(sizes) for dim in type_.shape), first)
        if type_.bound is not None:
            cut = cut % type_.bound.resolve(sizes)
        found[name] = cut
    return found


def _cut_results(
    failure: Failure, along: ArrayDict, sizes: Mapping[str, int], first: bool
) -> ArrayDict:
    values = result_ports(failure.program, "forward")
    types = failure.program.types
    return {
        name: _part(array, tuple(d.resolve(sizes) for d in types[values[name]].shape), first)
        for name, array in along.items()
        if name in values
    }


def _part(array: Array, shape: tuple[int, ...], first: bool) -> Array:
    """The first or the last numbers of an array along every axis."""
    if len(shape) != array.ndim or any(n > m for n, m in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{list(array.shape)} has no part of shape {list(shape)}")
    index = tuple(
        slice(0, n) if first else slice(m - n, m) for n, m in zip(shape, array.shape, strict=True)
    )
    return np.ascontiguousarray(array[index]).reshape(shape)
