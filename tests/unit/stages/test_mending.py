"""What turns out damaged when it is read is made again in the same call, each artefact once."""

import pytest

from qaclims_ray.errors import DamagedError
from qaclims_ray.stages.mending import Mending
from qaclims_ray.stages.stage import StageProgress


class Notes(StageProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_work_that_only_reads_is_done_again_after_what_makes_it() -> None:
    calls: list[str] = []

    def read() -> str:
        calls.append("read")
        if calls.count("read") == 1:
            raise DamagedError("runs/a/cams", "part-00000.parquet")
        return "the page"

    progress = Notes()
    assert Mending(progress).whole(read, lambda: calls.append("make")) == "the page"
    assert calls == ["read", "make", "read"]
    assert progress.notes == ["runs/a/cams/part-00000.parquet is not the file that was written: it is made again"]


def test_what_is_damaged_again_is_told() -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise DamagedError("runs/a/cams", f"part-{len(tries)}")

    with pytest.raises(DamagedError, match="part-2"):
        Mending(Notes()).whole(read)
    assert len(tries) == 2


def test_a_disk_that_damages_everything_is_not_waited_for() -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise DamagedError(f"runs/a/{len(tries)}", "network.safetensors")

    with pytest.raises(DamagedError):
        Mending(Notes()).whole(read)
    assert len(tries) == 11
