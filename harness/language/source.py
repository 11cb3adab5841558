"""Reading the text of a spec file without ever hanging, or reading what cannot be one."""

from pathlib import Path

from harness.errors import Place, SpecError, closest
from harness.files.kinds import not_text
from harness.files.user_file import FOLDER, FileFault, displayed, read_bytes

MAX_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """The text of a UTF-8 file (a byte-order mark is dropped).

    Raises SpecError for a file that is missing, unreadable, not a regular file, larger than
    ``MAX_BYTES``, of another kind or not UTF-8.
    """
    place = Place(displayed(path))
    try:
        content = read_bytes(path, MAX_BYTES, "a spec")
    except FileFault as fault:
        raise SpecError(f"{fault.reason}{_hint(path, fault)}", place) from None
    if kind := not_text(path):
        raise SpecError(f"this is {kind}, not a spec", place)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        found = f"0x{content[error.start]:02x} at byte {error.start:,}"
        message = f"this is not UTF-8: found {found}; save the file as UTF-8"
        raise SpecError(message, Place(place.file, line, column)) from None


def _hint(path: Path, fault: FileFault) -> str:
    if fault.missing:
        return _neighbour(path)
    return "; name a .yaml file in it" if fault.reason == FOLDER else ""


def _neighbour(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {displayed(folder)!r} either"
    try:
        stems = [entry.stem for entry in folder.iterdir() if entry.suffix == ".yaml"]
    except OSError:
        return ""
    # Stems alone: a common suffix would make any two names look alike.
    stem = closest(path.stem, stems)
    return "" if stem is None else f"; did you mean {stem + '.yaml'!r}?"
