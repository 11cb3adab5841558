"""Storage of the messages that tests see, in a file ``wording.json`` per folder of tests.

A test asserts facts: an exit code, an error class, a place, a value, a name. The fixture
:func:`wording` compares the sentence around the facts with the entry of the test in
``wording.json``. If a sentence was rewritten, ``pytest FOLDER --renew-wording`` runs the tests that
use the fixture and writes the file again. A reviewer then reads the difference.

An entry has the lines of a message. Text that changes between runs or machines is replaced
(:func:`steady`): folders, addresses, dates, and numbers with a decimal point, which are times,
versions or measurements. A test asserts such a value itself, as a fact.
"""

from __future__ import annotations

import difflib
import json
import platform
import re
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

FILE = "wording.json"
REPOSITORY = Path(__file__).parents[2]
# Test file -> test name -> lines of its messages.
Entries = dict[str, dict[str, list[str]]]
GAP = " ... "

UNSTEADY = (
    (r"\b127\.0\.0\.1(?::\d+)?", "ADDRESS"),
    (r"0x[0-9a-f]+", "0x#"),
    (r"\b(?=[a-f]*\d)[0-9a-f]{12,}\b", "#"),
    (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?)?", "DATE"),
    (r"(?<![\w.])\d[\d,]*\.\d[\w.+]*(?:(?<=e)[+-]\d+)?", "#"),
    (r"(?<![\w.])\d+e[+-]?\d+\b", "#"),
    (r"\b\d+(?= ?(?:s|ms|us|min|h|seconds|minutes|hours|[KMG]i?B|cores?)\b)", "#"),
    (r"\b\d+(?=/s\b)", "#"),
    (r"(?<=process )\d+|(?<=port )\d+|\b\d+ of \d+(?= bytes)", "#"),
    # A list of all functions grows with each new function.
    (r"\(known: [^()]{200,}", "(known: ..."),
)


def steady(text: str, folder: Path | None) -> str:
    """Replace folders, addresses, dates and measured numbers in a message by placeholders."""
    if folder is not None:
        text = text.replace(str(folder), "TMP")
    # Before the temporary folder, which may contain the environment or the repository.
    text = text.replace(sys.executable, "PYTHON").replace(str(REPOSITORY), "REPOSITORY")
    temporary = re.escape(tempfile.gettempdir())
    text = re.sub(
        rf"{temporary}/pytest-of-\S+?/pytest-\d+(?:/popen-gw\d+)?/[^/\s'\")]+", "TMP", text
    )
    text = re.sub(rf"{temporary}/(?!pytest-)[^/\s'\")]+", "TMP", text)
    text = re.sub(rf"(?<=on ){re.escape(platform.node())}\b", "HOST", text)
    for pattern, sign in UNSTEADY:
        text = re.sub(pattern, sign, text)
    return text


def lines_of(message: object) -> list[str]:
    """Return the lines of a message (a string or an error) or of a list of messages."""
    parts = message if isinstance(message, list | tuple) else [message]
    return [line for part in parts for line in str(part).splitlines()]


def spans(text: str, facts: str) -> tuple[int, int] | None:
    """Return where the facts begin and end in a text; None if one is missing or out of order."""
    begin = end = -1
    for fact in filter(None, facts.split(GAP)):
        place = text.find(fact, max(end, 0))
        if place < 0:
            return None
        begin, end = (place if begin < 0 else begin), place + len(fact)
    return begin, end


class Wording:
    """The comparison of a test's messages with its entry, line by line, in the order of the calls.

    Facts are a single string: the parts that must be in the message, in order, separated by
    ``" ... "``.
    """

    def __init__(self, entry: list[str], folder: Path | None, renewing: str | None) -> None:
        """Compare with ``entry``.

        Args:
            entry: The expected lines.
            folder: The temporary folder of the test.
            renewing: The command that renews entries; None if this run renews them.
        """
        self.entry = entry
        self.seen: list[str] = []
        self._folder = folder
        self._renewing = renewing

    def __call__(self, message: object, facts: str = "") -> None:
        """Assert that a message has these facts, and otherwise the text of the entry."""
        lines = lines_of(message)
        found = spans("\n".join(lines), facts)
        assert found, f"{facts!r} is not in {lines}"
        self._compare(lines)

    def line(self, message: object, facts: str) -> None:
        """Assert the same for those lines of a longer text that contain the facts."""
        whole = "\n".join(lines_of(message))
        found = spans(whole, facts) if facts else (0, len(whole))
        assert found, f"{facts!r} is not in:\n{whole}"
        first, last = (whole.count("\n", 0, place) for place in found)
        self._compare(whole.split("\n")[first : last + 1])

    @contextmanager
    def raises(
        self, kind: type[BaseException] | tuple[type[BaseException], ...], facts: str = ""
    ) -> Iterator[pytest.ExceptionInfo[BaseException]]:
        """Assert that the block raises an error of this class, with these facts in its message."""
        with pytest.raises(kind) as caught:
            yield caught
        self(caught.value, facts)

    def _compare(self, lines: list[str]) -> None:
        found = [steady(line, self._folder) for line in lines]
        start = len(self.seen)
        self.seen += found
        if self._renewing is None:
            return
        expected = self.entry[start : len(self.seen)]
        if found != expected:
            shown = difflib.unified_diff(expected, found, FILE, "this run", lineterm="", n=1)
            text = "\n".join(shown) if expected else f"no entry in {FILE} for {found}"
            pytest.fail(f"{text}\nif the new words are right: {self._renewing}")


class Snapshots:
    """The entries of all folders, and the messages that the tests of this process have seen."""

    def __init__(self, config: pytest.Config) -> None:
        self.renew = bool(config.getoption("--renew-wording"))
        # By path of wording.json: entries that were seen, and tests whose entries are stale.
        self.seen: dict[str, Entries] = {}
        self.stale: dict[str, list[tuple[str, str]]] = {}
        self._read: dict[Path, Entries] = {}

    def entries(self, path: Path) -> Entries:
        if path not in self._read:
            self._read[path] = json.loads(path.read_text()) if path.exists() else {}
        return self._read[path]

    def entry(self, item: pytest.Item) -> list[str]:
        path, file, name = place_of(item)
        return self.entries(path).get(file, {}).get(name, [])

    def keep(self, item: pytest.Item, lines: list[str]) -> None:
        path, file, name = place_of(item)
        self.seen.setdefault(str(path), {}).setdefault(file, {})[name] = lines

    def add(self, output: Mapping[str, object]) -> None:
        """Add the messages that a process of pytest-xdist has seen."""
        for path, entries in output["seen"].items():  # type: ignore[attr-defined]
            for file, tests in entries.items():
                self.seen.setdefault(path, {}).setdefault(file, {}).update(tests)
        for path, stale in output["stale"].items():  # type: ignore[attr-defined]
            self.stale.setdefault(path, []).extend(map(tuple, stale))

    def write(self) -> None:
        """Write the files in which an entry is new, changed or stale."""
        for name in {*self.seen, *self.stale}:
            path = Path(name)
            entries = self.entries(path)
            for file, test in self.stale.get(name, []):
                entries.get(file, {}).pop(test, None)
            for file, tests in self.seen.get(name, {}).items():
                entries.setdefault(file, {}).update(tests)
            filled = {
                file: {test: lines for test, lines in sorted(tests.items()) if lines}
                for file, tests in sorted(entries.items())
            }
            text = json.dumps({f: t for f, t in filled.items() if t}, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")


SNAPSHOTS = pytest.StashKey[Snapshots]()
PASSED = pytest.StashKey[bool]()


def place_of(item: pytest.Item) -> tuple[Path, str, str]:
    """Return the file of a test's entry, the name of the test's file, and the test's name."""
    return item.path.parent / FILE, item.path.name, item.nodeid.partition("::")[2]


def uses(item: pytest.Item) -> bool:
    return "wording" in getattr(item, "fixturenames", ())


def stale_entries(
    snapshots: Snapshots, items: Iterable[pytest.Item]
) -> dict[Path, list[tuple[str, str]]]:
    """Return entries that no test uses, for files that were collected whole or no longer exist."""
    tests: dict[Path, dict[str, set[str]]] = {}
    for item in items:
        path, file, name = place_of(item)
        tests.setdefault(path, {}).setdefault(file, set()).update([name] if uses(item) else ())
    stale = {}
    for path, files in tests.items():
        stale[path] = [
            (file, test)
            for file, entries in snapshots.entries(path).items()
            if file in files or not (path.parent / file).exists()
            for test in entries
            if test not in files.get(file, ())
        ]
    return {path: found for path, found in stale.items() if found}


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "run the tests that use the fixture 'wording', and write their sentences anew"
    parser.addoption("--renew-wording", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SNAPSHOTS] = Snapshots(config)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Find entries that no test uses; if entries are renewed, deselect all other tests.

    Raises:
        pytest.UsageError: an entry is for a test that does not exist.
    """
    snapshots = config.stash[SNAPSHOTS]
    part = any("::" in argument for argument in config.args) or config.getoption("lf", False)
    stale = {} if part else stale_entries(snapshots, items)
    if stale and not snapshots.renew:
        path, tests = next(iter(stale.items()))
        names = ", ".join("::".join(test) for test in tests)
        raise pytest.UsageError(
            f"{path}: no test uses the entries {names}: pytest {path.parent} --renew-wording"
        )
    yield
    if snapshots.renew:
        snapshots.stale = {str(path): tests for path, tests in stale.items()}
        config.hook.pytest_deselected(items=[item for item in items if not uses(item)])
        items[:] = [item for item in items if uses(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None]:
    report = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed  # type: ignore[attr-defined]
    return report


@pytest.fixture
def wording(request: pytest.FixtureRequest) -> Iterator[Wording]:
    """Compare messages with the entry of this test."""
    snapshots = request.config.stash[SNAPSHOTS]
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    command = f"pytest {request.path.parent} --renew-wording"
    found = Wording(snapshots.entry(request.node), folder, None if snapshots.renew else command)
    yield found
    if not request.node.stash.get(PASSED, False):
        return
    snapshots.keep(request.node, found.seen)
    if not snapshots.renew and len(found.entry) > len(found.seen):
        unused = found.entry[len(found.seen) :]
        pytest.fail(f"the test no longer sees {unused}, which {FILE} has: {command}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    snapshots = session.config.stash[SNAPSHOTS]
    if not snapshots.renew:
        return
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        snapshots.write()
    else:
        output["wording"] = {"seen": snapshots.seen, "stale": snapshots.stale}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add the messages that a process of pytest-xdist has seen."""
    snapshots: Snapshots = node.config.stash[SNAPSHOTS]  # type: ignore[attr-defined]
    output = getattr(node, "workeroutput", None) or {}
    if "wording" in output:
        snapshots.add(output["wording"])
