"""An optimizer's update as a program, with what a model says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import Place, SpecError
from harness.files.complaints import KeyPath
from harness.language.attributes import GivenAttributes, PlaceOf, read_attributes
from harness.language.document import Document
from harness.language.library import Library, content
from harness.language.lower_rule import Around, RuleLowering
from harness.language.optimizer_schema import Optimizer, OptimizerUse
from harness.language.scope import Scope, check_used
from harness.program.updates import UpdateRule


def lower_use(library: Library, use: OptimizerUse, document: Document) -> UpdateRule:
    """The rule of a model's ``optimizer``, with those of its groups of parameters.

    Raises:
        SpecError: as for :func:`lower_update`.
    """
    given, root = dict(use.model_extra or {}), ("optimizer",)
    paths: dict[str, KeyPath] = {name: (*root, name) for name in given}
    rule = _one(library, use, document, given, paths, use.schedule, (*root, "schedule"))
    groups: dict[str, UpdateRule] = {}
    for number, group in enumerate(use.groups):
        at: KeyPath = (*root, "groups", number)
        own = dict(group.model_extra or {})
        if "learning_rate" in own:
            told = (
                "a group has no learning rate of its own, as phases of a training set that: give "
                "'schedule', what the rate is multiplied by, as in schedule: 0.1"
            )
            raise SpecError(told, document.place_of_key((*at, "learning_rate")))
        schedule = use.schedule if group.schedule is None else group.schedule
        path = (*(root if group.schedule is None else at), "schedule")
        of_own = {name: (*at, name) for name in own}
        made = _one(library, use, document, given | own, paths | of_own, schedule, path)
        if not own and group.schedule is None and group.matrices:
            told = "a group gives attributes or a schedule of its own, found none"
            raise SpecError(told, document.place_of(at))
        if not group.matrices:
            if made.matrices is None:
                told = f"{use.optimizer} does with matrices what it does with all: leave this out"
                raise SpecError(told, document.place_of((*at, "matrices")))
            made = replace(made, matrices=None)
        for pattern in group.patterns:
            groups.setdefault(pattern, made)
    return replace(rule, groups=groups)


def _one(
    library: Library,
    use: OptimizerUse,
    document: Document,
    given: Mapping[str, Any],
    paths: Mapping[str, KeyPath],
    schedule: str | float | None,
    path: KeyPath,
) -> UpdateRule:
    def place_of(name: str, key: bool) -> Place:
        where = paths.get(name, ("optimizer", name))
        return document.place_of_key(where) if key else document.place_of(where)

    around = Around(
        document,
        use.gradient,
        use.total,
        None if schedule is None else (str(schedule), path),
        {name: (text, paths[name]) for name, text in given.items() if isinstance(text, str)},
        use.accumulate,
        use.average,
    )
    return lower_update(library, use.optimizer, given, place_of, around)


def lower_update(
    library: Library,
    name: str,
    given: Mapping[str, Any],
    place_of: PlaceOf | None,
    around: Around | None = None,
) -> UpdateRule:
    """The rule of optimizer ``name`` with some attributes given.

    Raises:
        SpecError: there is no such optimizer, it has no learning_rate, or is wrong in another way.
    """
    at = place_of("optimizer", False) if place_of else None
    definition = library.find("optimizer", name, at)
    spec, document = content(definition, Optimizer), definition.document
    if "learning_rate" not in spec.attributes:
        raise SpecError("an optimizer has a learning_rate", document.place_of(("attributes",)))
    around = around or Around(document)
    plain = {n: v for n, v in given.items() if n not in around.given or n not in spec.attributes}
    owner = GivenAttributes(
        f"optimizer {name!r}", plain, at or document.place_of(()), document, place_of
    )
    attributes = read_attributes(library, spec.attributes, owner, {})
    rate = "learning_rate"
    _check_rate(
        attributes[rate],
        owner.at(rate) if rate in plain else document.place_of(("attributes", rate)),
    )
    every = RuleLowering(library, definition, spec, attributes, around)
    rule, lowered = every.rule(name), [every]
    if spec.matrices is not None:
        of_matrices = RuleLowering(library, definition, spec, attributes, around, spec.matrices)
        rule = replace(rule, matrices=of_matrices.rule(name))
        lowered.append(of_matrices)
    used = Scope({}, used={name for one in lowered for name in one.used})
    check_used(used, spec.attributes, document, "attributes", "attribute")
    check_used(used, spec.total, document, "total", "total")
    return rule


def _check_rate(rate: Any, at: Place) -> None:
    """:class:`SpecError` for a rate at which steps go up."""
    if isinstance(rate, float) and rate < 0:
        raise SpecError(
            f"a learning rate is 0 or more, found {rate:g}: steps go down the gradient; "
            "where they are to go up, change the sign of the loss",
            at,
        )
