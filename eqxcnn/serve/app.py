"""The service as an ASGI application: its routes and its error answers."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import InputError
from ..images.decode import explain
from ..images.opening import open_image
from ..inference import rank_classes
from .asgi import App, count_requests, drain_bodies
from .batches import Batcher, QueueFull
from .bodies import TooLarge, read_body, split_body
from .counters import Counters
from .limits import Limits
from .pictures import draw_heat, draw_pixels
from .predictor import Predictor

__all__ = ["Service"]

_PAGE = Path(__file__).with_name("page.html")
#: The page may connect to this service only; its script and style are inline.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_DEFAULT_TOP = 10
_RETRY = {"Retry-After": "1"}


class Service:
    """A classifier as an HTTP service. `app` is the ASGI application; it compiles the network when the server starts.

    - `on_failure`: called with the exception if the network cannot be compiled.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, on_failure: Callable[[BaseException], Any] = lambda error: None
    ) -> None:
        self.predictor, self.limits, self.is_ready, self._on_failure = predictor, limits, False, on_failure
        self._preprocess, self._num_active = predictor.classifier.preprocess, 0
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "decode")
        # One thread, because the device computes one batch at a time.
        self._compute = ThreadPoolExecutor(1, "compute")
        self.counters = Counters(predictor.sizes)
        self.batcher = Batcher(
            predictor.classify, self._compute, limits.max_batch, limits.queue, self.counters.batches.add
        )
        routes = [
            Route("/", self._page), Route("/health", self._health), Route("/metrics", self._metrics),
            Route("/predict", self._predict, methods=["POST"]),
        ]  # fmt: skip
        handlers: dict[Any, Any] = {HTTPException: _answer_mistake, Exception: _answer_bug}
        inner = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._run)
        wrapped = drain_bodies(inner, limits.timeout)  # type: ignore[arg-type]
        self.app: App = count_requests(wrapped, self.counters, [route.path for route in routes])

    @contextlib.asynccontextmanager
    async def _run(self, _: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(self._compile_and_run())
        yield
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._compute.shutdown(wait=False, cancel_futures=True)

    async def _compile_and_run(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._compute, self.predictor.compile)
            self.is_ready = True
            await self.batcher.run()
        except Exception as error:
            self.is_ready = False
            self._on_failure(error)

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    async def _health(self, _: Request) -> Response:
        classifier = self.predictor.classifier
        facts = {
            "status": "ready" if self.is_ready else "compiling",
            "model": classifier.name,
            "image_size": classifier.image_size,
            "channels": classifier.in_channels,
            "num_classes": len(classifier.class_names),
            "has_heat": self.predictor.has_heat,
        }
        return JSONResponse(facts, 200 if self.is_ready else 503, {} if self.is_ready else _RETRY)

    async def _metrics(self, _: Request) -> Response:
        text = self.counters.text(len(self.batcher))
        return PlainTextResponse(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _predict(self, request: Request) -> Response:
        if not self.is_ready:
            raise HTTPException(503, "the network is being compiled: try again in a moment", _RETRY)
        if self._num_active >= self.limits.queue:
            raise _busy()
        self._num_active += 1
        try:
            return await self._answer(request)
        except InputError as error:
            raise HTTPException(400, str(error)) from error
        except TooLarge as error:
            raise HTTPException(413, str(error)) from error
        except QueueFull as error:
            raise _busy() from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the connection was closed before the request was complete") from error
        finally:
            self._num_active -= 1

    async def _answer(self, request: Request) -> Response:
        limits = self.limits
        top = _read_number(request, "top", _DEFAULT_TOP, 1, 10**6)
        shows_pictures = bool(_read_number(request, "explain", 0, 0, 1))
        sentence, status = "the body did not arrive", 408
        try:
            async with asyncio.timeout(limits.timeout):
                body = await read_body(request.stream(), request.headers.get("content-length"), limits.max_bytes)
                sentence, status = "there was no answer", 504
                kind = request.headers.get("content-type", "")
                files = await self._decode_in_thread(split_body, body, kind, limits.queue)
                images = await asyncio.gather(
                    *(self._decode_in_thread(self._decode, file, index, len(files)) for index, file in enumerate(files))
                )
                rows = await self.batcher.predict(images)
                answers = [{"classes": self._name_classes(row, top)} for row in rows]
                if shows_pictures:
                    for answer, image, row in zip(answers, images, rows, strict=True):
                        answer |= await self._draw(image, row)
        except TimeoutError as error:
            raise HTTPException(status, f"{sentence} within {limits.timeout:g} seconds: try again later") from error
        return JSONResponse({"model": self.predictor.classifier.name, "predictions": answers})

    async def _decode_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, partial(function, *arguments))

    def _decode(self, data: bytes, index: int, count: int) -> np.ndarray:
        """Decodes one image; for a request with several images, an error names the image's position."""
        try:
            with explain(data):
                image = open_image(data, self.limits.max_pixels)
            return self._preprocess(image)
        except InputError as error:
            raise InputError(f"image {index + 1} of {count}: {error}" if count > 1 else str(error)) from error

    def _name_classes(self, row: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Returns the `top` most probable classes, most probable first."""
        names = self.predictor.classifier.class_names
        return [
            {"index": int(index), "name": names[index], "probability": round(float(row[index]), 6)}
            for index in rank_classes(row, top)
        ]

    async def _draw(self, image: np.ndarray, row: np.ndarray) -> dict[str, str | None]:
        """Returns data URLs of the prepared pixels and of the most probable class's Grad-CAM."""
        loop = asyncio.get_running_loop()
        heat = await loop.run_in_executor(self._compute, self.predictor.heat, image, int(row.argmax()))
        return {"seen": draw_pixels(image), "heat": None if heat is None else draw_heat(heat)}


def _read_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Returns a number from the query string.

    **Raises:** `InputError` unless the query has at most one value, a whole number from `low` to `high`.
    """
    values: Sequence[str] = request.query_params.getlist(name) or [str(default)]
    text = values[0]
    is_number = len(values) == 1 and text.isascii() and text.isdecimal() and len(text) <= len(str(high))
    if not is_number or not low <= int(text) <= high:
        raise InputError(f"`{name}` (=`{text}`) in the address must be one whole number from {low} to {high}")
    return int(text)


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests are waiting: try again in a moment", _RETRY)


async def _answer_mistake(_: Request, error: HTTPException) -> Response:
    """Answers with the error's message; errors that Starlette itself raises get a clearer message."""
    sentences = {
        404: "there is no such page: the service has `/`, `/predict`, `/health` and `/metrics`",
        405: "this method is not allowed here: send images with `POST /predict`, and use `GET` for the other pages",
    }
    return JSONResponse({"error": sentences.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _answer_bug(_: Request, __: Exception) -> Response:
    """Answers with a fixed sentence; the server logs the traceback and closes the connection."""
    sentence = "the service failed on this request and logged the error"
    return JSONResponse({"error": sentence}, 500, {"Connection": "close"})
