import signal
import threading
from pathlib import Path

import pytest

from eqxcnn.runtime.interrupts import Interrupted, Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_stored_and_the_second_acts_as_usual(number):
    usual = []
    before = signal.signal(number, lambda number, frame: usual.append(number))
    try:
        with Interrupts() as interrupts:
            assert interrupts.received is None
            signal.raise_signal(number)
            assert (interrupts.received, usual) == (number, [])
            signal.raise_signal(number)
            assert usual == [number]
        signal.raise_signal(number)
        assert usual == [number, number]
    finally:
        signal.signal(number, before)


def test_handlers_are_restored_without_a_signal():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_change_no_handlers():
    before, inside = signal.getsignal(signal.SIGINT), []

    def run():
        with Interrupts():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]


def test_the_exception_says_how_to_continue():
    error = Interrupted(signal.SIGTERM, Path("runs/a"))
    assert str(error) == "stopped by SIGTERM and saved; continue with --resume runs/a"
    assert (error.signal, error.folder) == (15, Path("runs/a"))
