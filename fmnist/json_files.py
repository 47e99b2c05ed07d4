"""Writes metrics.json: strict JSON that a person can read as well. Imports nothing heavy."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmnist.files import whole_file


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` to `path` as strict JSON: NaN and infinities become null, arrays lists.

    Raises TypeError for what JSON cannot hold, before anything is written, and OSError, naming `path`.
    """
    text = _lines(plain(content)) + "\n"
    with whole_file(path) as file:
        file.write(text.encode())


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types: arrays and their scalars unpacked, what is not finite as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _lines(value: Any, indent: str = "") -> str:
    """Indented JSON in which what holds only plain values keeps to one line: a matrix has a row a line."""
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (list, dict)) or not any(isinstance(item, (list, dict)) for item in items):
        return json.dumps(value, allow_nan=False)
    inner = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"
    lines = (f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
