"""The service over HTTP: its answers, limits and error messages."""

import base64
import contextlib
import io
import json
import logging
import re
import socket
import struct
import threading
import time
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.serve.conftest import running
from tests.serve.waiting import wait_until

pytestmark = pytest.mark.usefixtures("fast_compilation")

NO_IMAGE = "the request has no image"


@pytest.fixture(scope="module")
def served(lenet):
    with running(lenet, max_pixels=100_000, max_bytes=300_000, queue=8, timeout=20.0) as pair:
        yield pair


@pytest.fixture
def client(served):
    return served[1]


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def draw_digit(number):
    """Returns an image of a 7 or a 1 in thick white lines on black."""
    lines = {7: [(7, 7), (20, 7), (12, 22)], 1: [(14, 5), (14, 23)]}
    image = Image.new("L", (28, 28))
    ImageDraw.Draw(image).line(lines[number], fill=255, width=3)
    return image


SEVEN, ONE = encode(draw_digit(7)), encode(draw_digit(1))


def best(answer, index=0):
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][index]["classes"][0]["name"]


def refused(answer, status):
    """Returns the error message of an answer, and checks that the answer reveals nothing else."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    sentence = answer.json()["error"]
    assert "Traceback" not in sentence
    assert not re.search(r"\.py|/tmp|/home|site-packages", sentence)
    return sentence


def test_raw_bytes_have_the_probabilities_of_the_classifier(client, lenet):
    answer = client.post("/predict", content=SEVEN, headers={"Content-Type": "image/png"})
    assert answer.json()["model"] == "lenet"
    (prediction,) = answer.json()["predictions"]
    expected = lenet.top_k(lenet.prepare(SEVEN), 10)[0]
    assert [each["name"] for each in prediction["classes"][:3]] == [name for name, _ in expected[:3]]
    assert [lenet.class_names[each["index"]] for each in prediction["classes"]] == [
        each["name"] for each in prediction["classes"]
    ]
    found = [each["probability"] for each in prediction["classes"]]
    np.testing.assert_allclose(found, [value for _, value in expected], atol=1e-5)
    assert set(prediction) == {"classes"}


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
def test_the_type_of_raw_bytes_does_not_matter(client, headers):
    assert best(client.post("/predict", content=encode(draw_digit(7).convert("RGB"), "JPEG"), headers=headers)) == "7"


def test_a_form_with_one_or_several_files(client):
    assert best(client.post("/predict", files={"image": SEVEN})) == "7"
    answer = client.post("/predict", files=[("a", SEVEN), ("a", ONE), ("b", SEVEN)])
    assert [best(answer, index) for index in range(3)] == ["7", "1", "7"]


def test_json_with_one_or_several_images(client):
    images = [base64.b64encode(each).decode() for each in (ONE, SEVEN)]
    answer = client.post("/predict", json={"images": images})
    assert [best(answer, index) for index in range(2)] == ["1", "7"]


def test_more_images_than_a_batch_are_answered_in_order(client):
    answer = client.post("/predict", files=[("a", each) for each in (SEVEN, ONE) * 4])
    assert [best(answer, index) for index in range(8)] == ["7", "1"] * 4


def test_a_chunked_body_without_a_length(client):
    assert best(client.post("/predict", content=iter([SEVEN[:50], SEVEN[50:]]))) == "7"


def test_top_limits_the_classes(client):
    (prediction,) = client.post("/predict?top=2", content=SEVEN).json()["predictions"]
    assert len(prediction["classes"]) == 2


def test_explain_returns_the_prepared_pixels_and_the_heat(client, lenet):
    wide = encode(draw_digit(7).resize((60, 90)))
    (prediction,) = client.post("/predict?explain=1", content=wide).json()["predictions"]
    seen, heat = (
        Image.open(io.BytesIO(base64.b64decode(prediction[name].removeprefix("data:image/png;base64,"))))
        for name in ("seen", "heat")
    )
    np.testing.assert_array_equal(np.asarray(seen), lenet.prepare(wide)[..., 0])
    assert (heat.mode, heat.size) == ("RGBA", (28, 28))
    opacity = np.asarray(heat)[..., 3]
    assert opacity.max() == 205  # the hottest pixel
    assert opacity.min() < 20


def test_a_network_without_maps_has_no_heat():
    import eqxcnn

    with running(eqxcnn.load("mlp"), max_batch=1) as (_, client):
        assert client.get("/health").json()["has_heat"] is False
        (prediction,) = client.post("/predict?explain=1", content=SEVEN).json()["predictions"]
        assert prediction["heat"] is None
        assert prediction["seen"].startswith("data:image/png;base64,")


def huge_png(width, height):
    """Returns a PNG file of a few bytes whose header states the given size."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"{NO_IMAGE}: send the bytes of an image file"),
        (b"hello", "the image cannot be read as an image: its content is not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "its content is not an image in a known format"),
        (SEVEN[:60], "the image cannot be read as an image: "),
        (huge_png(400, 300), "it has 120,000 pixels, but the limit is 100,000: make it smaller."),
        (huge_png(2**31 - 1, 2**31 - 1), "the image cannot be read as an image: "),
    ],
)
def test_what_is_not_an_image_is_refused_in_one_sentence(client, content, message):
    assert message in refused(client.post("/predict", content=content), 400)


def test_one_unreadable_image_of_several_is_named(client):
    answer = client.post("/predict", files=[("a", SEVEN), ("a", b"x"), ("a", SEVEN)])
    assert refused(answer, 400).startswith("image 2 of 3: the image cannot be read as an image: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body cannot be read as JSON: "),
        (b"[" * 100_000, "it has more than 50 levels"),
        (b'{"images": ' + b"[" * 60 + b"]" * 60 + b"}", "it has more than 50 levels"),
        (b"\xff\xfe", "the body cannot be read as JSON: "),
        (b"", "the body cannot be read as JSON: "),
        (b'{"images": []}', NO_IMAGE),
        (b'{"images": "YQ=="}', "the body must be a JSON object with one key"),
        (b'{"images": [1]}', "the body must be a JSON object with one key"),
        (b'{"images": [null]}', "the body must be a JSON object with one key"),
        (b'{"images": ["YQ=="], "more": 1}', "the body must be a JSON object with one key"),
        (b'["YQ=="]', "the body must be a JSON object with one key"),
        (b'{"images": ["YQ==", "*"]}', "image 2 of 2 is not base64"),
        ('{"images": ["é"]}'.encode(), "image 1 of 1 is not base64"),
        (b'{"images": ["YQ=="]}', "its content is not an image"),
        (b'{"images": ["\\ud800"]}', "image 1 of 1 is not base64"),
    ],
)
def test_json_that_is_not_as_it_must_be(client, body, message):
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert message in refused(answer, 400)


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("multipart/form-data", b"x", "the form is not valid `multipart/form-data`"),
        ("multipart/form-data; boundary=", b"x", "the form is not valid `multipart/form-data`"),
        ("multipart/form-data; boundary=" + "a" * 5_000, b"x", "the form is not valid `multipart/form-data`"),
        ("multipart/form-data; boundary=a", b"no boundary", "the form is not valid `multipart/form-data`"),
        ("multipart/form-data; boundary=a", b"", NO_IMAGE),
        ("multipart/form-data; boundary=a", b"--a--\r\n", NO_IMAGE),
        ("multipart/form-data; boundary=a", b"--a\r\nX: y\r\n\r\nabc", "the form ends before its last boundary"),
        ("multipart/form-data; boundary=a", b"--a\r\n" + b"X: y\r\n" * 9_000, "the form is not valid"),
        ("multipart/form-data; boundary=a", b"--a\r\nX: y\r\n\r\n\r\n--a--\r\n", "its content is not an image"),
    ],
)
def test_forms_that_are_not_as_they_must_be(client, kind, body, message):
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert message in refused(answer, 400)


def test_more_images_than_may_wait_are_refused(client):
    for body in ({"files": [("a", ONE)] * 9}, {"json": {"images": [base64.b64encode(ONE).decode()] * 9}}):
        assert "send at most 8" in refused(client.post("/predict", **body), 413)
    many = b"--a\r\n\r\n\r\n" * 30_000
    answer = client.post("/predict", content=many, headers={"Content-Type": "multipart/form-data; boundary=a"})
    assert "the form has more than 8 parts" in refused(answer, 413)


@pytest.mark.parametrize("path", ["/predict", "/health", "/nowhere"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_read_to_its_end_and_refused(client, path, is_chunked):
    # The client reads only after it has sent everything, so the test fails if the connection is reset.
    body, head = bytes(20_000_000), "Transfer-Encoding: chunked"
    if is_chunked:
        body = (b"186a0\r\n" + bytes(100_000) + b"\r\n") * 200 + b"0\r\n\r\n"
    else:
        head = f"Content-Length: {len(body)}"
    received = talk(client, f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
    status, sentence = {
        "/predict": (b"413", b"the body has more than 300,000 bytes: send fewer or smaller images in one request"),
        "/health": (b"405", b"this method is not allowed here"),
        "/nowhere": (b"404", b"there is no such page"),
    }[path]
    assert received.startswith(b"HTTP/1.1 " + status)
    assert sentence in received


def test_the_connection_stays_open_after_a_body_that_is_too_large(client):
    assert "more than 300,000 bytes" in refused(client.post("/predict", content=bytes(3_000_000)), 413)
    assert best(client.post("/predict", content=SEVEN)) == "7"


@pytest.mark.parametrize("path", ["/predict/x", "/../../etc/passwd", "/page.html", "/%00"])
def test_other_paths_are_refused(client, path):
    assert refused(client.get(path), 404).startswith("there is no such page")


def test_other_methods_are_refused_and_their_bodies_read(client):
    assert refused(client.get("/predict"), 405).startswith("this method is not allowed here")
    assert client.get("/predict").headers["Allow"] == "POST"
    refused(client.post("/health", content=bytes(3_000_000)), 405)
    refused(client.put("/nowhere", content=bytes(3_000_000)), 404)
    assert client.head("/health").status_code == 200


@pytest.mark.parametrize(
    "query", ["top=0", "top=x", "top=-1", "top=%D9%A3", "top=1&top=2", "explain=2", "top=" + "9" * 99]
)
def test_queries_that_mean_nothing_are_refused(client, query):
    assert re.match(r"`(top|explain)` \(=`.*`\) in the address must be one whole", refused(
        client.post(f"/predict?{query}", content=SEVEN), 400
    ))  # fmt: skip


def talk(client, data, seconds=30):
    """Sends raw bytes and returns everything that the server sends back."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=seconds) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(client, data):
    received = talk(client, data)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in received
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("line", [b"X: " + b"a" * 40_000, b"X: y\r\n" * 7_000, b"X" * 40_000])
def test_long_headers_are_refused(client, line):
    assert talk(client, b"GET /health HTTP/1.1\r\nHost: x\r\n" + line).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"X: " + b"a" * 5_000_000, b"X: y\r\n" * 1_000_000, b"X" * 5_000_000])
def test_huge_headers_are_refused_before_they_are_complete(client, line):
    received = b""
    # Whether the client sees the answer depends on how much it has still to send.
    with contextlib.suppress(ConnectionError):
        received = talk(client, b"GET /health HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert client.get("/health").status_code == 200


def test_a_client_that_asks_before_it_sends(client):
    # curl does this for large bodies. The service asks for the body, drains it, and then refuses it.
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 400000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(bytes(400_000))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_a_connection_that_closes_before_its_body_is_complete(served):
    service, client = served
    errors = service.counters.errors
    for head in (b"Content-Length: 1000", b"Transfer-Encoding: chunked"):
        talk(client, b"POST /predict HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n5\r\nabcde\r\n")
    assert best(client.post("/predict", content=SEVEN)) == "7"
    wait_until(lambda: service._num_active == 0)
    assert service.counters.errors == errors


def test_a_bug_has_a_fixed_sentence_and_is_counted(served, monkeypatch):
    service, client = served

    def fail(images):
        raise RuntimeError("a secret of /home/user")

    before = service.counters.errors
    monkeypatch.setattr(service.batcher, "_classify", fail)
    answer = client.post("/predict", content=SEVEN)
    assert refused(answer, 500) == "the service failed on this request and logged the error"
    monkeypatch.undo()
    assert answer.headers["Connection"] == "close"  # The server closes it, so the client must not use it again.
    assert best(client.post("/predict", content=SEVEN)) == "7"
    assert service.counters.errors == before + 1


def test_the_traceback_of_a_bug_is_written_to_standard_error(served, monkeypatch, capsys):
    service, client = served

    def fail(images):
        raise RuntimeError("a bug in the network")

    written = ""

    def is_written():
        nonlocal written
        written += capsys.readouterr().err
        return "RuntimeError: a bug in the network" in written

    monkeypatch.setattr(logging.root, "handlers", [])  # Without pytest's own, as in a program.
    monkeypatch.setattr(service.batcher, "_classify", fail)
    refused(client.post("/predict", content=SEVEN), 500)
    wait_until(is_written)
    assert "Traceback (most recent call last)" in written
    assert "test_service.py" in written


def test_health_and_metrics(client):
    health = client.get("/health").json()
    assert health == {
        "status": "ready", "model": "lenet", "image_size": [28, 28], "channels": 1, "num_classes": 10, "has_heat": True,
    }  # fmt: skip

    def read():
        text = client.get("/metrics").text
        assert re.fullmatch(r'(# (HELP|TYPE) \w+ .*\n|\w+(\{[\w="/.,+]*\})? [\d.e-]+\n)+', text)
        return dict(re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE))

    before = read()
    client.post("/predict", files=[("a", SEVEN)] * 3)
    client.post("/predict", content=b"x")
    after = read()
    changed = {name: float(value) - float(before.get(name, 0)) for name, value in after.items()}
    assert changed['eqxcnn_requests_total{path="/predict",status="200"}'] == 1
    assert changed['eqxcnn_requests_total{path="/predict",status="400"}'] == 1
    assert changed["eqxcnn_predict_seconds_count"] == 2
    assert changed['eqxcnn_predict_seconds_bucket{le="+Inf"}'] == 2
    assert 0 < changed["eqxcnn_predict_seconds_sum"] < 60
    # Three images form one batch, which counts in the bucket of up to 4 images but not in that of up to 2.
    assert changed['eqxcnn_batch_images_bucket{le="2"}'] == 0
    assert changed['eqxcnn_batch_images_bucket{le="4"}'] == 1
    assert changed["eqxcnn_batch_images_sum"] == 3
    assert changed["eqxcnn_errors_total"] == 0


def test_the_page_may_only_talk_to_the_service(client):
    answer = client.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_before_the_network_is_compiled(lenet):
    with running(lenet, is_compiled=False) as (_, client):
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "compiling")
        answer = client.post("/predict", content=bytes(3_000_000))
        assert refused(answer, 503) == "the network is being compiled: try again in a moment"
        assert answer.headers["Retry-After"] == "1"
        assert client.get("/").status_code == 200


def hold(service, monkeypatch):
    """Blocks classification; returns the event that unblocks it, and the list of batch sizes."""
    release, sizes, classify = threading.Event(), [], service.batcher._classify

    def wait(images):
        sizes.append(len(images))
        release.wait(30)
        return classify(images)

    monkeypatch.setattr(service.batcher, "_classify", wait)
    return release, sizes


def post_in_thread(client, answers, **body):
    def post():
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
            answers.append(own.post("/predict", **body))

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def test_requests_that_wait_are_one_batch_and_a_full_queue_refuses(served, monkeypatch):
    service, client = served
    release, sizes = hold(service, monkeypatch)
    answers = []
    threads = [post_in_thread(client, answers, content=SEVEN)]
    wait_until(lambda: sizes == [1])
    threads += [post_in_thread(client, answers, content=ONE) for _ in range(3)]
    wait_until(lambda: len(service.batcher) == 3)
    threads.append(post_in_thread(client, answers, files=[("a", SEVEN)] * 5))
    wait_until(lambda: len(service.batcher) == 8)
    refused_answer = client.post("/predict", content=SEVEN)
    assert refused(refused_answer, 503) == "too many requests are waiting: try again in a moment"
    assert refused_answer.headers["Retry-After"] == "1"
    release.set()
    for thread in threads:
        thread.join(60)
    assert sorted(best(answer) for answer in answers) == ["1", "1", "1", "7", "7"]
    assert sizes == [1, 4, 4]


def test_a_request_that_takes_too_long(lenet, monkeypatch):
    with running(lenet, max_batch=1, timeout=0.5) as (service, client):
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"
        began = time.monotonic()
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
            connection.sendall(head)
            received = b""
            while chunk := connection.recv(65_536):
                received += chunk
        # The timeout applies twice, to reading the body and to draining it; the machine may be busy.
        assert 0.9 < time.monotonic() - began < 10
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in received.lower()
        assert b"the body did not arrive within 0.5 seconds" in received
        release, sizes = hold(service, monkeypatch)
        answer = client.post("/predict", content=SEVEN)
        assert refused(answer, 504) == "there was no answer within 0.5 seconds: try again later"
        refused(client.post("/predict", content=SEVEN), 504)
        assert len(service.batcher) == 0
        release.set()
        monkeypatch.undo()
        assert sizes == [1]
        assert best(client.post("/predict", content=SEVEN)) == "7"
        assert json.loads(client.get("/health").text)["status"] == "ready"
