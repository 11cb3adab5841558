"""Few modules know how systems differ: for facts and files, and for the end of processes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from places import ROOT

ALLOWED = {
    "harness/files/system.py",
    "harness/worker/ending.py",
    "harness/worker/posix_processes.py",
}
NAMES = {"sys.platform", "os.name", "platform.system"}
PARTS = ("fcntl", "prctl", "pidfd", "affinity", "sigtimedwait", "waitid", "pipe2", "fallocate")
FILES = ("/proc/", "/sys/", "kernel32", "msvcrt", "_winapi")


def questions(tree: ast.Module) -> Iterator[int]:
    """The lines that ask for the system, or use what only some systems have."""
    for node in ast.walk(tree):
        found = ""
        if isinstance(node, (ast.Attribute, ast.Import | ast.ImportFrom)):
            found = ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = node.value if node.value.startswith(FILES) else ""
        asked = found in NAMES or found.startswith(FILES)
        if asked or any(part in found.rpartition(".")[2] for part in PARTS):
            yield getattr(node, "lineno", 0)


def test_other_modules_do_not_ask_for_the_system() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): list(questions(ast.parse(path.read_text("utf-8"))))
        for folder in ("harness", "backends")
        for path in (ROOT / folder).rglob("*.py")
    }
    # A record names the system, as a fact for readers.
    assert len(found.pop("harness/results/environment.py")) == 1
    assert {name for name, lines in found.items() if lines} == ALLOWED


QUESTIONS = """
import fcntl
from os import pidfd_open
if sys.platform == "linux" or os.name == "nt":
    os.sched_getaffinity(0)
    open("/proc/self/maps")
    ctypes.CDLL(None).prctl(1)
    fcntl.flock(1, 2)
    Path(f"/proc/{pid}/stat")
ctypes.CDLL("kernel32")
"""


def test_each_question_is_seen() -> None:
    lines = set(questions(ast.parse(QUESTIONS)))
    assert lines == {2, 3, 4, 5, 6, 7, 9, 10}
