import pytest
from jax import lax

from eqxcnn.errors import InputError
from eqxcnn.layers.sizes import parse_padding, parse_pair, resolve_padding


@pytest.mark.parametrize(("value", "expected"), [(2, (2, 2)), ((1, 3), (1, 3)), (1, (1, 1))])
def test_parse_pair(value, expected):
    assert parse_pair("stride", value, least=1) == expected


@pytest.mark.parametrize("value", [0, (1, 0), (0, 1), -3])
def test_parse_pair_rejects_other_values(value):
    with pytest.raises(InputError, match=r"`stride` \(=.*\) must be an integer of at least 1, or a \(height, width\)"):
        parse_pair("stride", value, least=1)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("SAME", "SAME"),
        ("VALID", "VALID"),
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
    ],
)
def test_parse_padding(padding, expected):
    assert parse_padding(padding) == expected


@pytest.mark.parametrize("padding", ["same", -1, (0, -1), ((0, 1), (-1, 0))])
def test_parse_padding_rejects_other_values(padding):
    with pytest.raises(InputError, match=r'`padding` \(=.*\) must be "SAME", "VALID", or integers of at least 0'):
        parse_padding(padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_resolve_padding_is_laxs(padding, size, window, stride):
    expected = lax.padtype_to_pads((size, 9), (window, 4), (stride, 2), padding)
    assert resolve_padding(padding, (size, 9), (window, 4), (stride, 2)) == tuple(expected)


def test_resolve_padding_by_hand():
    assert resolve_padding("SAME", (8, 7), (3, 3), (2, 2)) == ((0, 1), (1, 1))
    assert resolve_padding(((1, 2), (3, 4)), (8, 7), (3, 3), (2, 2)) == ((1, 2), (3, 4))
