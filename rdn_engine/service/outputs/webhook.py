"""Lines in the bodies of HTTP requests."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import email.utils
import hashlib
import hmac
import logging
import os
import re
import ssl
import time
from collections.abc import Sequence

import httpx2

from rdn_engine.errors import ConfigError
from rdn_engine.media.given import given_value
from rdn_engine.service.outputs.settings import WebhookSettings
from rdn_engine.service.outputs.writer import Attempt
from rdn_engine.version import version

_ABOUT_CONTENT = (400, 413, 422)
"""Answers that may mean one line of several"""
_LATER = (408, 425, 429)
"""Answers of 4xx that mean: not now"""
_BUSY = (429, 503)
"""Answers that hold for whatever else might be sent"""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~]+([ \t]+[!-~]+)*")
"""Of a header. What checks them later quotes them in its errors"""
_ANSWER = 2**16
"""Bytes of an answer's body that are read, so that the connection can be used again"""


class _Quiet(logging.Filter):
    """httpx2 logs the address of each request at the level INFO, and its path is often the secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith("output ")


_quiet = _Quiet()


class WebhookWriter:
    """Posts a batch as one JSON object. It is written when the receiver has answered with a 2xx."""

    def __init__(self, name: str, settings: WebhookSettings) -> None:
        """Nothing is sent yet.

        Args:
            name: of the output, for messages.
            settings: of the output.

        Raises:
            ConfigError: for an address, a header or a secret that cannot be used, and values that are not there.
            OSError: for a file that cannot be read.
        """
        logging.getLogger("httpx2").addFilter(_quiet)
        self._url, self._place = _address(name, given_value(settings.url, "an address"))
        self._key = None if settings.secret is None else _key(name, given_value(settings.secret, "a secret"))
        headers = {key: given_value(value, "a header's value") for key, value in settings.headers.items()}
        if not all(_NAME.fullmatch(key) and _VALUE.fullmatch(value) for key, value in headers.items()):
            raise ConfigError(f"output {name!r}: a header is not shown; wanted a name, and a value in printable ASCII")
        self._timeout = settings.timeout
        try:
            verify = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"output {name!r}: {settings.ca_file}: {error.strerror}; wanted certificates") from None
        self._client = httpx2.AsyncClient(
            headers={"user-agent": f"rdn-engine/{version()}", "content-type": "application/json", **headers},
            timeout=None,  # theirs begin anew with every byte; `_post` bounds the whole
            verify=verify,
        )
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[tuple[int, float]] | None = None
        self._stopped = False
        self._status = 0
        """The latest answer's, where it was no 2xx"""

    def write(self, stream: str, lines: Sequence[bytes]) -> Attempt:
        """Post lines. Where the receiver does not take them together for what they hold, each is sent alone.

        Args:
            stream: name; it is in the lines.
            lines: without line feeds.
        """
        attempt = self._send(lines)
        if len(lines) == 1 or attempt.refused == 0 or self._status not in _ABOUT_CONTENT:
            return attempt
        refused, why = 0, attempt.message
        for done, line in enumerate(lines):
            attempt = self._send([line])
            if attempt.done == 0:
                return Attempt(done, refused, attempt.message, attempt.everywhere, attempt.after)
            refused += attempt.refused
            why = attempt.message or why
        return Attempt(len(lines), refused, why if refused else None)

    def forget(self, stream: str) -> None:
        """Nothing is held for a stream."""

    def stop(self) -> None:
        """Cancel the request that is going on."""
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """Close the connections."""
        try:
            self._loop.run_until_complete(asyncio.wait_for(self._client.aclose(), 1.0))
        finally:
            self._loop.close()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _send(self, lines: Sequence[bytes]) -> Attempt:
        self._status = 0
        if self._stopped:
            return Attempt(0, message="it was stopped", everywhere=True)
        body = b'{"results": [' + b", ".join(lines) + b"]}\n"
        self._task = self._loop.create_task(self._post(body))
        try:
            status, after = self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            return Attempt(0, message="it was stopped", everywhere=True)
        except TimeoutError:
            return Attempt(0, message=f"{self._place} did not answer within {self._timeout:g} s", everywhere=True)
        except (httpx2.HTTPError, OSError) as error:
            return Attempt(0, message=f"{self._place}: {_reason(error)}", everywhere=True)
        finally:
            self._task = None
        if 200 <= status < 300:
            return Attempt(len(lines))
        self._status = status
        message = f"{self._place} answered {status}"
        if status < 400:
            return Attempt(0, message=f"{message}; redirects are not followed", everywhere=True)
        if status < 500 and status not in _LATER:
            return Attempt(len(lines), len(lines), message)
        return Attempt(0, message=message, everywhere=status in _BUSY, after=after)

    async def _post(self, body: bytes) -> tuple[int, float]:
        """Status of the answer, and the seconds that it asks to wait.

        Raises:
            TimeoutError, httpx2.HTTPError: where none came.
        """
        status: int | None = None
        after = 0.0
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._url, content=body, headers=self._signature(body)) as answer,
            ):
                status, after = answer.status_code, _seconds(answer.headers.get("retry-after"))
                read = 0
                async for part in answer.aiter_raw():
                    read += len(part)
                    if read > _ANSWER:
                        break
        except (TimeoutError, httpx2.HTTPError):
            if status is None:
                raise
        return status, after

    def _signature(self, body: bytes) -> dict[str, str]:
        """Headers by the Standard Webhooks convention; the id is the body's, and the same when it is sent again."""
        number, now = hashlib.sha256(body).hexdigest()[:32], str(int(time.time()))
        headers = {"webhook-id": number, "webhook-timestamp": now}
        if self._key is not None:
            signed = hmac.digest(self._key, f"{number}.{now}.".encode() + body, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
        return headers


def _address(name: str, text: str) -> tuple[httpx2.URL, str]:
    """An address, and the part of it that may be shown: its path is often the secret."""
    with contextlib.suppress(httpx2.InvalidURL, ValueError):
        url = httpx2.URL(text)
        # It takes any port, and escapes what no host's name can hold.
        known = url.scheme in ("http", "https") and (url.port is None or 0 < url.port < 2**16)
        if known and url.host and "%" not in url.host and not set(text) & set(" \t"):
            port = "" if url.port is None else f":{url.port}"
            host = f"[{url.host}]" if ":" in url.host else url.host
            return url, f"{url.scheme}://{host}{port}"
    raise ConfigError(f"output {name!r}: url is not shown, as it may be secret; wanted http://HOST/... or https://...")


def _reason(error: BaseException) -> str:
    """What the system said, where it is behind an error of the library: that says "all attempts failed"."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno:
            # asyncio puts the address behind it; numbers of TLS and of names that cannot be resolved are others.
            own = isinstance(behind, ssl.SSLError) or behind.errno < 0
            return str(behind.strerror) if own else os.strerror(behind.errno)
        behind = behind.__cause__ or behind.__context__
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _key(name: str, text: str) -> bytes:
    """A secret's bytes: with `whsec_` in front it is base64, as the convention has it."""
    if not text.startswith("whsec_"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigError(f"output {name!r}: secret is not shown; wanted base64 after whsec_") from None


def _seconds(text: str | None) -> float:
    """What `Retry-After` asks for, 0 or more: seconds or a date."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0
