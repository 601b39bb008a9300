"""Checks that training gives the bits recorded by `tests/golden/make_digests.py`."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "golden"))
from make_digests import FILE, RECIPES, digest_run, machine

RECORDS = {json.dumps(record["machine"]): record["digests"] for record in json.loads(FILE.read_text(encoding="utf-8"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_run_reproduces_the_recorded_digest(name, tmp_path):
    here = json.dumps(machine())
    if here not in RECORDS:
        pytest.skip(f"the digests were recorded on {' and '.join(RECORDS)}; this machine is {here}")
    assert digest_run(RECIPES[name], tmp_path) == RECORDS[here][name]
