"""A bucket that answers badly: slowly, with errors, or with a listing of some seconds ago (an S3 server, by moto)."""

import contextlib
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
OLD_S = 3.0
"""Seconds by which a listing may be late."""


class _Bad:
    """A server whose answers are held back, refused or old, as a generator says."""

    def __init__(self, served: Application, rng: random.Random) -> None:
        self._served, self._rng, self._lock = served, rng, threading.Lock()

    def draw(self) -> float:
        with self._lock:
            return self._rng.random()

    def served(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        return self._served(environ, start)


class Slow(_Bad):
    """Each fifth answer takes up to a second and a half."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.draw() < 0.2:
            time.sleep(1.5 * self.draw())
        return self.served(environ, start)


class Refusing(_Bad):
    """Each seventh request is answered by an error, as a store does that has too much to do."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.draw() >= 1 / 7:
            return self.served(environ, start)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]


class Old(_Bad):
    """Half of all listings are those of some seconds ago; S3 itself promises better, other stores do not."""

    def __init__(self, served: Application, rng: random.Random) -> None:
        super().__init__(served, rng)
        self._listings: dict[str, tuple[float, list[Any], bytes]] = {}

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] != "GET" or "list-type" not in asked:
            return self.served(environ, start)
        kept = self._listings.get(asked)
        if kept is not None and time.monotonic() - kept[0] < OLD_S and self.draw() < 0.5:
            start(*kept[1])
            return [kept[2]]
        head: list[Any] = []
        content = b"".join(self.served(environ, lambda *given: head.extend(given[:2])))
        self._listings[asked] = (time.monotonic(), head, content)
        start(*head)
        return [content]


STORES: dict[str, type[Slow] | type[Refusing] | type[Old]] = {
    "a store that answers slowly": Slow,
    "a store that answers with errors": Refusing,
    "a store with old listings": Old,
}
"""Name -> how the server answers."""


@contextlib.contextmanager
def bad_bucket(name: str, seed: int) -> Iterator[tuple[str, dict[str, str], Callable[[], None]]]:
    """Serve an empty bucket that answers badly.

    Args:
        name: one of `STORES`.
        seed: decides which answers.

    Yields:
        The bucket's URI, the environment by which a command finds it, and what makes the server answer well.
    """
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    good: Any = DomainDispatcherApplication(create_backend_app)
    bad = STORES[name](good, random.Random(seed))
    answers: list[Any] = [good]
    server = make_server("127.0.0.1", 0, lambda *asked: answers[-1](*asked), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    bucket = f"qaclims-{secrets.token_hex(4)}"  # servers of one process share what they hold
    try:
        _client(environment).create_bucket(Bucket=bucket)
        answers.append(bad)
        yield f"s3://{bucket}", environment, lambda: answers.append(good)
    finally:
        server.shutdown()
        thread.join()


def _client(environment: dict[str, str]) -> Any:
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


def download(uri: str, environment: dict[str, str], folder: Any) -> None:
    """Copy all that a bucket holds below a URI into a local folder."""
    client = _client(environment)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for entry in page.get("Contents", ()):
            target = folder / entry["Key"].removeprefix(f"{prefix}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, entry["Key"], str(target))
