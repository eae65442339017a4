"""A bucket that answers badly: slowly, with errors, or with a listing of some seconds ago (an S3 server, by moto)."""

import contextlib
import logging
import os
import random
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from qaclims_ray.miniature.dataset import write_dataset
from tests.chaos.comparison import content_of, half_files
from tests.chaos.lines import Called, call
from tests.chaos.outcome import Outcome
from tests.chaos.works import FIRST_PART, WORKS
from tests.cluster.small_run import AS_VOC

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
RUN = "run"
IN_BUCKET = "corpus in a bucket"
_CORPUS = {**WORKS[FIRST_PART].settings, **AS_VOC, "tracking.enabled": False, "cluster.num_workers": 1}
"""A command that trains in its own process wants a local folder, even where it trains nothing. Images lie on the disk:
to draw them in the bucket takes thousands of requests."""
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


class Served:
    """An S3 server of this process, which answers well until it is told otherwise."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
        self._good: Any = DomainDispatcherApplication(create_backend_app)
        self._answers: Application = self._good
        self._server = make_server("127.0.0.1", 0, lambda *asked: self._answers(*asked), threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        """By which commands find it."""

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URI."""
        bucket = f"qaclims-{secrets.token_hex(4)}"  # servers of one process share what they hold
        self._client().create_bucket(Bucket=bucket)
        return f"s3://{bucket}"

    def answer(self, name: str, seed: int) -> None:
        """Answer badly from now on.

        Args:
            name: one of `STORES`.
            seed: decides which answers.
        """
        self._answers = STORES[name](self._good, random.Random(seed))

    def answer_well(self) -> None:
        """Answer as a store should from now on."""
        self._answers = self._good

    def download(self, uri: str, folder: Path) -> None:
        """Copy all that lies below a URI into a local folder."""
        client = self._client()
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for entry in page.get("Contents", ()):
                target = folder / entry["Key"].removeprefix(f"{prefix}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())

    def end(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()

    def _client(self) -> Any:
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )


@contextlib.contextmanager
def served_buckets() -> Iterator[Served]:
    """Serve buckets that this process finds by its environment, and what it starts from now on."""
    import s3fs

    served = Served()
    try:
        with mock.patch.dict(os.environ, served.environment):
            s3fs.S3FileSystem.clear_instance_cache()
            yield served
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        served.end()


class BadStores:
    """Corpora that are made in buckets which answer badly; a Ray is there, whose processes find the buckets."""

    def __init__(self, folder: Path, served: Served) -> None:
        """Make the corpus that nothing happens to.

        Args:
            folder: where all is done; what lies there of an earlier time is used again.
            served: the server.
        """
        self.folder, self.served = folder, served
        world = folder / "world"
        write_dataset(str(world), num_images=12, num_val=2, seed=0)
        self.settings = {**_CORPUS, "data.root": str(world)}
        ended = call(folder / "undisturbed" / RUN, self.settings, "corpus")
        assert ended.code == 0, ended.told
        kept = content_of(folder / "undisturbed" / RUN)
        self.expected = {name: value for name, value in kept.items() if name.startswith("corpus/")}

    def fault(self, store: str, seed: int) -> Outcome:
        """Make a corpus in a bucket that answers badly, and once more when it answers well; judge what is there."""
        uri, place = f"{self.served.new_bucket()}/{RUN}", self.folder / f"stored-{seed}"
        self.served.answer(store, seed)
        try:
            first = call(uri, self.settings, "corpus")
        finally:
            self.served.answer_well()
        again = call(uri, self.settings, "corpus")
        try:
            self.served.download(uri, place / RUN)
            faults = [
                *([f"exit code {first.code}: {first.told[-400:]}"] if not _may_end(first) else []),
                *([f"again: exit code {again.code}: {again.told[-400:]}"] if again.code != 0 else []),
                *(f"other: {name}" for name in self._others(content_of(place / RUN))),
                *(f"left behind: {name}" for name in half_files(place / RUN)),
            ]
        finally:
            shutil.rmtree(place, ignore_errors=True)
        how = "it went on by itself" if first.code == 0 else first.lines[:160]
        told = "; ".join(" ".join(fault.split()) for fault in faults[:4]) or how
        return Outcome(IN_BUCKET, store, "from the start", seed, "FAULT" if faults else "the same", told)

    def _others(self, found: dict[str, str]) -> list[str]:
        own = {name: value for name, value in found.items() if name.startswith("corpus/")}
        return [name for name in sorted({*own, *self.expected}) if own.get(name) != self.expected.get(name)]


def _may_end(ended: Called) -> bool:
    return ended.code in (0, 2) and "Traceback" not in ended.told
