"""metrics.json against Python's own reader, told to refuse what is not strict."""

import json

import numpy as np
import pytest

from fmnist.json_files import write_json


def test_metrics_are_strict_json_of_the_same_numbers(tmp_path):
    path = tmp_path / "metrics.json"
    bad = {"nan": float("nan"), "inf": np.float32("inf"), "list": [1.5, -np.inf]}
    good = {"count": np.int64(7), "share": np.float64(0.1), "confusion": np.eye(3, dtype=int), "text": "ü"}
    write_json(path, {"bad": bad, "good": good, "pair": (True, None)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read["bad"] == {"nan": None, "inf": None, "list": [1.5, None]}
    assert read["good"] == {"count": 7, "share": 0.1, "confusion": np.eye(3).tolist(), "text": "ü"}
    assert read["pair"] == [True, None]
    assert "[1, 0, 0],\n" in path.read_text("utf-8"), "a matrix has a row a line"


def test_what_json_cannot_hold_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"before")
    with pytest.raises(TypeError):
        write_json(path, {"a": {"b": object()}})
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
