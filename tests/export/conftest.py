"""Fixtures for the tests of exports."""

import pytest

import eqxcnn


@pytest.fixture(scope="module")
def lenet():
    return eqxcnn.load("lenet")
