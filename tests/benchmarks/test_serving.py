"""The benchmark of the service, with a few requests."""

import json

import pytest

from benchmarks import serving
from eqxcnn.errors import InputError


@pytest.mark.slow
def test_a_small_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    out = tmp_path / "serving.json"
    serving.main([
        "--models", "lenet", "--clients", "1", "4", "--seconds", "0.5", "--rounds", "2", "--requests", "50",
        "--hostile", "40", "--out", str(out),
    ])  # fmt: skip
    speed, memory, hostile = json.loads(out.read_text())["tables"]
    assert [line[:2] for line in speed["lines"]] == [["`lenet`", "1"], ["`lenet`", "4"]]
    for *_, requests, middle, high in speed["lines"]:
        assert float(requests.replace(",", "")) > 1
        assert 0 < float(middle) <= float(high)
    assert [line[0] for line in memory["lines"]] == ["0", *(str(5 * part) for part in range(1, 11))]
    assert all(50 < float(line[1].replace(",", "")) < 5000 for line in memory["lines"])
    assert sum(int(line[1]) for line in hostile["lines"]) == 40
    assert {line[0] for line in hostile["lines"]} <= {"200", "400", "413"}


@pytest.mark.slow
def test_a_network_without_trained_weights_is_saved_with_random_ones(tmp_path, monkeypatch):
    assert serving.prepare("lenet", tmp_path)[0] == "lenet"
    monkeypatch.delitem(serving.PUBLISHED, "lenet")
    run, request = serving.prepare("lenet", tmp_path)
    assert run == tmp_path / "lenet"
    assert (run / "config.json").exists()
    assert request.startswith(b"POST /predict HTTP/1.1\r\n")
    assert b"\r\n\r\n\x89PNG" in request


@pytest.mark.parametrize("flags", [["--requests", "5"], ["--clients", "0"], ["--clients"], ["--models"]])
def test_options_that_cannot_be_measured(tmp_path, flags):
    with pytest.raises(InputError, match="`models` and `clients` must not be empty"):
        serving.main([*flags, "--out", str(tmp_path / "serving.json")])
