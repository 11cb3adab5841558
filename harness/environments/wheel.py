"""An installed distribution as a wheel again, so that another environment gets the same code.

Nothing is built: the files that the installer wrote down are packed as they are. Of an editable
installation these are the few that lead to its source, so that its copy is editable too.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from email import message_from_string
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

from harness.errors import UsageError

# What the next installer writes anew.
NOT_PACKED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


def installed(name: str) -> Distribution:
    """A distribution of which an installer has written down the files.

    Raises:
        UsageError: there is none: it is imported from its source, or another tool put it there.
    """
    # Beside a source tree there is an egg-info, without that.
    found = next((d for d in distributions(name=name) if d.read_text("RECORD")), None)
    if found is None:
        raise UsageError(
            f"no installer has written down the files of {name}, so that it cannot be put into "
            "another environment: install it there yourself, and name its interpreter "
            "(--backend torch@2.6=/path/to/python)"
        )
    return found


def is_editable(found: Distribution) -> bool:
    """Whether a distribution is installed so that its source is used in place."""
    text = found.read_text("direct_url.json")
    told = json.loads(text) if text else {}
    return bool(told.get("dir_info", {}).get("editable"))


def pack(found: Distribution, folder: Path) -> Path:
    """Write the wheel of a distribution into a folder."""
    tag = message_from_string(found.read_text("WHEEL") or "").get("Tag", "py3-none-any")
    name = re.sub(r"[-_.]+", "_", found.name)
    path = folder / f"{name}-{found.version}-{tag}.whl"
    rows = io.StringIO(newline="")
    record = csv.writer(rows, lineterminator="\n")
    home = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in filter(_is_packed, found.files or ()):
            content = Path(str(file.locate())).read_bytes()
            archive.writestr(file.as_posix(), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.writerow([file.as_posix(), f"sha256={digest.decode()}", len(content)])
            home = file.parts[0] if file.parts[0].endswith(".dist-info") else home
        record.writerow([f"{home}/RECORD", "", ""])
        archive.writestr(f"{home}/RECORD", rows.getvalue())
    return path


def _is_packed(file: PackagePath) -> bool:
    """Not scripts, which lie elsewhere and are made from the entry points, and nothing compiled."""
    inner = ".." not in file.parts and "__pycache__" not in file.parts
    return inner and not (file.parts[0].endswith(".dist-info") and file.name in NOT_PACKED)
