"""A plugin whose backends have one planted kernel fault per device, and its installation."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
