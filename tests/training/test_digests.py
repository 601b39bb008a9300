"""Checks that training gives the bits recorded by `tests/golden/make_digests.py`."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "golden"))
from make_digests import FILE, RECIPES, digest_run, machine

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_run_reproduces_the_recorded_digest(name, tmp_path):
    if machine() != GOLDEN["machine"]:
        pytest.skip(f"the digests were recorded on {GOLDEN['machine']}; this machine is {machine()}")
    assert digest_run(RECIPES[name], tmp_path) == GOLDEN["digests"][name]
