"""Hostile requests from the fuzzer: each is answered, and none with status 500."""

import random
from collections import Counter

import pytest

from tests.fuzz.bodies import make_hostile_body
from tests.fuzz.images import make_images
from tests.serve.conftest import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),  # for damaged files
]


def test_hostile_requests_are_refused_or_answered(lenet, tmp_path):
    images, found = make_images(tmp_path), Counter()
    with running(lenet, max_pixels=1_000_000, max_bytes=1_000_000, queue=16) as (service, client):
        for number in range(120):
            rng = random.Random(number)
            content_type, body = make_hostile_body(rng, images)
            headers = {"Content-Type": content_type.encode("latin-1")}
            answer = client.post(f"/predict?explain={rng.randrange(2)}", content=body, headers=headers)
            assert answer.status_code in (200, 400, 413), (number, answer.status_code, answer.text)
            assert set(answer.json()) == ({"model", "predictions"} if answer.status_code == 200 else {"error"})
            found[answer.status_code] += 1
        assert min(found[status] for status in (200, 400, 413)) > 0
        assert (service.counters.errors, service._num_active, len(service.batcher)) == (0, 0, 0)
