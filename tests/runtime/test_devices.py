"""The devices that a run uses from each of several processes."""

from types import SimpleNamespace

import pytest

from eqxcnn.errors import InputError
from eqxcnn.runtime.devices import _choose


def make_devices(*counts):
    """Returns one stand-in per device; `counts` has the number of devices of process 0, 1, ..."""
    return [
        SimpleNamespace(process_index=index, id=number) for index, count in enumerate(counts) for number in range(count)
    ]


def test_every_process_gives_as_many_devices():
    chosen = _choose(make_devices(3, 2), 4)
    assert [(device.process_index, device.id) for device in chosen] == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(("counts", "few"), [((1, 3), 0), ((3, 1), 1)])
def test_a_process_with_too_few_devices_is_named(counts, few):
    with pytest.raises(InputError, match=f"process {few} has 1 devices, and others have more"):
        _choose(make_devices(*counts), 4)


def test_a_number_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"must be a multiple of the number of processes \(2\).* give 4"):
        _choose(make_devices(2, 2), 3)
