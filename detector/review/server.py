"""Serves the review pages of a result folder to browsers on this machine, and keeps what readers decide.

No page of another site may read or post here: a request must name this host (against DNS rebinding), a post must come
from our own pages (Origin, Sec-Fetch-Site, JSON, a header that forms cannot send), and beyond loopback every request
needs the token.
"""

from __future__ import annotations

import hashlib
import hmac
import http.server
import ipaddress
import json
import re
import socket
import socketserver
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from detector.errors import DetectorError
from detector.export.files import printable
from detector.review.decisions import Decision, to_csv
from detector.review.people import Patient, patients_of
from detector.review.store import Store

LEAST_TOKEN = 16
_MOST_BYTES = 2_000_000
_MOST_DECISIONS = 1000
_COOKIE = "detector_review"
_TIMEOUT_S = 30
_HTML, _JSON = "text/html; charset=utf-8", "application/json"
_FILES: Mapping[str, str] = {
    r"/report\.html": _HTML,
    r"/report/[0-9a-fx][0-9a-f._]{0,90}\.html": _HTML,
    r"/report/thumbnails/[0-9a-fx][0-9a-f._]{0,90}\.jpg": "image/jpeg",
    r"/(errors|skipped)\.csv": "text/plain; charset=utf-8",
}
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Review:
    """What is served.

    Attributes
    ----------
    folder : Path
        The result folder.
    store : Store
    token : str
        What a browser must bring; empty asks for none, which is for loopback alone.
    blind : bool
        Whether readers are held to blind mode.
    show_identity : bool
        Whether patients are read from the headers for the screen.
    images : tuple of Path
        Where the images of the run lie, for that.
    """

    folder: Path
    store: Store
    token: str = ""
    blind: bool = False
    show_identity: bool = False
    images: tuple[Path, ...] = ()


class ReviewServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Listens on one address, a thread a connection.

    Parameters
    ----------
    review : Review
    host : str
        An address of this machine.
    port : int
        0 takes a free one.

    Raises
    ------
    DetectorError
        If it may not, or cannot, listen there.
    """

    daemon_threads = True

    def __init__(self, review: Review, host: str = "127.0.0.1", port: int = 0) -> None:
        check_access(host, review)
        self.review, self.host = review, host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise DetectorError(
                f"cannot listen on {host} port {port}: {why}; choose another --host or --port"
            ) from error

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that hangs up is no event, and messages could quote what must not be logged."""

    @property
    def url(self) -> str:
        """Address of the worklist."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        name = f"[{host}]" if ":" in host else host
        token = f"?token={urllib.parse.quote(self.review.token)}" if self.review.token else ""
        return f"http://{name}:{self.server_port}/report.html{token}"

    def start(self) -> None:
        """Serve in another thread until `stop`."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def stop(self) -> None:
        """Take no more requests."""
        self.shutdown()
        self.server_close()

    def answers_to(self, host: str) -> bool:
        """Return whether a Host header names this server: by loopback's names, an address, or the machine's name."""
        name, _, port = host.lower().rpartition(":")
        if port != str(self.server_port):
            return False
        name = name.strip("[]")
        if is_loopback(self.host):
            return name == "localhost" or _is_address(name, ipaddress.ip_address("127.0.0.1").is_loopback)
        return name in (self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()) or _is_address(name)


def check_access(host: str, review: Review) -> None:
    """Raise if results would be open to other machines without a token, or patients' names at all.

    Raises
    ------
    DetectorError
    """
    if review.token and (
        len(review.token) < LEAST_TOKEN or not review.token.isascii() or not review.token.isprintable()
    ):
        raise DetectorError(f"the token must have at least {LEAST_TOKEN} plain characters")
    if is_loopback(host):
        return
    if not review.token:
        raise DetectorError(f"{printable(host)} can be reached from other machines: give a --token as well")
    if review.show_identity:
        raise DetectorError(
            "patients are shown on this machine alone, since the connection is not encrypted: leave out --show-identity"
            " or --host; through a tunnel of ssh, others reach this machine's own address"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str, loopback: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback


class _Refusal(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "detector", ""
    timeout = _TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Log nothing: addresses hold case ids."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, act: Callable[[str, Mapping[str, str]], None]) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20))
        try:
            self._check_host()
            if self._let_in(parts.path, query):
                act(parts.path, query)
        except _Refusal as refusal:
            self._refuse(refusal.status, str(refusal))
        except DetectorError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this request cannot be understood")

    # ------------------------------------------------------------------------------------------------ who may

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.answers_to(hosts[0]):
            raise _Refusal(HTTPStatus.MISDIRECTED_REQUEST, "this server does not go by that name")

    def _let_in(self, path: str, query: Mapping[str, str]) -> bool:
        """Return whether to go on: without a token everybody on this machine may; a token given is put in a cookie."""
        token = self.server.review.token
        if not token or hmac.compare_digest(self._cookie(), _ticket(token)):
            return True
        given = query.get("token", "")
        if self.command == "GET" and given and hmac.compare_digest(given.encode(), token.encode()):
            cookie = f"{_COOKIE}={_ticket(token)}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": path, "Set-Cookie": cookie})
            return False
        raise _Refusal(HTTPStatus.UNAUTHORIZED, "open the address that detector review has printed, with its token")

    def _cookie(self) -> str:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def _from_our_page(self) -> None:
        """Raise unless the request comes from a script of our own pages; others cannot send this header unasked."""
        if self.headers.get("X-Detector") != "1" or self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise _Refusal(HTTPStatus.FORBIDDEN, "only the review pages may ask this")

    # ------------------------------------------------------------------------------------------------- answers

    def _get(self, path: str, query: Mapping[str, str]) -> None:
        review = self.server.review
        if path in ("/", ""):
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/report.html"})
        elif path == "/agreement":
            from detector.review.page import agreement_page

            self._send(
                HTTPStatus.OK, _HTML, agreement_page(review.folder, review.store, query.get("reviewer", "")).encode()
            )
        elif path == "/decisions.csv":
            text = to_csv(review.store.visible(query.get("reviewer", "")))
            extra = {"Content-Disposition": 'attachment; filename="decisions.csv"'}
            self._send(HTTPStatus.OK, "text/csv; charset=utf-8", text.encode(), extra)
        elif path.startswith("/api/"):
            self._from_our_page()
            self._json(self._ask(path, query))
        else:
            self._file(path)

    def _ask(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        review = self.server.review
        if path == "/api/session":
            return {"review": True, "blind": review.blind, "identity": review.show_identity}
        if path == "/api/decisions":
            visible = review.store.visible(query.get("reviewer", ""), query.get("case_id", ""))
            return {"decisions": [decision.to_mapping() for decision in visible]}
        if path == "/api/identity" and review.show_identity:
            found: list[Patient] = patients_of(review.folder, query.get("case_id", ""), review.images)
            return {"patients": [vars(patient) for patient in found]}
        raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _post(self, path: str, query: Mapping[str, str]) -> None:
        self._from_our_page()
        origin = urllib.parse.urlsplit(self.headers.get("Origin", ""))
        if origin.scheme not in ("http", "https") or origin.netloc.lower() != self.headers["Host"].lower():
            raise _Refusal(HTTPStatus.FORBIDDEN, "only the review pages may save decisions")
        if self.headers.get_content_type() != _JSON:
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "decisions are sent as JSON")
        if path != "/api/decisions":
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        sent = json.loads(self._body())
        rows = sent.get("decisions") if isinstance(sent, dict) else None
        if not isinstance(rows, list) or len(rows) > _MOST_DECISIONS or not all(isinstance(r, dict) for r in rows):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "no decisions were sent")
        self._json({"saved": self.server.review.store.add([Decision.of(row) for row in rows])})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not length.isascii():
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "the length of the decisions is missing")
        if len(length) > 9 or int(length) > _MOST_BYTES:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too many decisions at once")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the decisions were cut off")
        return body

    def _file(self, path: str) -> None:
        kind = next((kind for pattern, kind in _FILES.items() if re.fullmatch(pattern, path)), "")
        file = self.server.review.folder / path.lstrip("/")
        if not kind or ".." in path or not file.is_file():
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        self._send(HTTPStatus.OK, kind, file.read_bytes())

    def _json(self, value: Mapping[str, Any]) -> None:
        self._send(HTTPStatus.OK, _JSON, json.dumps(value).encode())

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(status, _JSON, json.dumps({"error": message}).encode(), {"Connection": "close"})

    def _send(self, status: HTTPStatus, kind: str, body: bytes, extra: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        length = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**_HEADERS, **length, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _ticket(token: str) -> str:
    return hmac.new(token.encode(), b"detector review", hashlib.sha256).hexdigest()
