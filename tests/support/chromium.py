"""The browser that pages of reports are looked at in: Chromium, headless."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NEEDED = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium; apt-get install chromium brings it"
)
# Cells of the page of many.
MANY = 2000
