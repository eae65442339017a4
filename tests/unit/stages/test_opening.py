"""What happens once, before the first stage that has something to make; no Ray is started."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaclims_ray.cluster import session
from qaclims_ray.cluster.session import Needs
from qaclims_ray.errors import ModelError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages import opening
from qaclims_ray.stages.opening import Opening, try_networks
from tests.unit.stages.told import Told


def test_it_happens_once_and_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told, done = Told(), []

    @contextlib.contextmanager
    def fake_session(needs: Needs) -> Iterator[None]:
        done.append("connected")
        yield
        done.append("gone")

    monkeypatch.setattr(opening, "try_networks", lambda config: done.append("tried"))
    monkeypatch.setattr(session, "ray_session", fake_session)
    monkeypatch.setattr(session, "resources_there", lambda: {"CPU": 4.0, "GPU": 3.0})
    with contextlib.ExitStack() as stack:
        opened = Opening(miniature(), stack, told)
        assert done == []
        assert opened() == opened() and opened().gpus == 3.0
        assert done == ["tried", "connected"]
        assert [kind for kind, _ in told.lines] == ["note"] and "processes for images" in told.lines[0][1]
    assert done == ["tried", "connected", "gone"]


def test_networks_that_were_tried_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(opening, "try_networks", tried.append)
    monkeypatch.setattr(session, "ray_session", lambda needs: contextlib.nullcontext())
    monkeypatch.setattr(session, "resources_there", dict)
    with contextlib.ExitStack() as stack:
        opened = Opening(miniature(), stack, Told())
        opened.try_once()
        opened()
    assert len(tried) == 1


@pytest.mark.parametrize(
    "section, systems",
    [("cam_net.weights", ["baseline"]), ("clip.model", ["qa_clims"]), ("segmentation.net.weights", ["baseline"])],
)
def test_weights_that_cannot_be_loaded_are_refused(section: str, systems: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"no weights")
    config = with_overrides(miniature(), {"systems": systems, section: str(broken)})
    with pytest.raises(ModelError, match="weights"):
        try_networks(config)
