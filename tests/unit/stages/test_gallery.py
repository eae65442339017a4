"""The gallery of a run as it lies on disk; shards are worked on here, without Ray."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, read_manifest
from qaclims_ray.report.gallery import PAGE_NAME
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages import gallery
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.gallery import choose, run_gallery
from qaclims_ray.stages.gallery_images import lines_name
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import CompareArguments
from qaclims_ray.stages.results import Results
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.trust import read_trust
from tests.unit.stages.unmasked_run import make_run, maps_of


@pytest.fixture
def shards(monkeypatch) -> list[Any]:
    """Work on shards in this process; the list has those that were worked on."""
    done: list[Any] = []

    def here(shards, *, finished=(), actor, actor_kwargs, **_):
        worker = actor(**actor_kwargs)
        for index, shard in enumerate(shards):
            if index not in finished:
                done.append(shard)
                worker(shard)

    monkeypatch.setattr(gallery, "run_shards", here)
    return done


def make(out: str, **settings: Any) -> artifacts.ArtifactMeta | None:
    layout = RunLayout(out)
    config = with_overrides(load_config(out), {f"evaluation.{name}": value for name, value in settings.items()})
    found = Results(trust=read_trust(layout.trust))
    return run_gallery(Stage(config, layout), read_manifest(layout.manifest), found)


def index_of(folder: str) -> dict[str, Any]:
    page = (Path(folder) / PAGE_NAME).read_text()
    return json.loads(re.findall(r'id="index">(.*?)</script>', page, re.S)[0])


def test_every_stage_of_every_image_is_there(tmp_path, shards):
    out = make_run(tmp_path / "run", images=6, masked=2)
    for number in (4, 5):
        save_label_map(maps_of(number, 0)["mask"], f"{out}/truth/i{number}.png")
    meta = make(out)
    assert meta is not None and meta.summary["images"] == 6
    index = index_of(RunLayout(out).gallery)
    assert index["sources"][0]["stages"] == ["seed", "mask", "final"] and index["sources"][0]["hasCams"]
    assert index["hasTruth"] and None not in index["disagreement"]
    page = (Path(RunLayout(out).gallery) / PAGE_NAME).read_text()
    pictures = json.loads(re.findall(r'id="pictures-0">(.*?)</script>', page, re.S)[0])
    assert sum("truth" in own for own in pictures.values()) == 2
    assert sorted(at for at, found in enumerate(index["wrong"]["0.final"]) if found) == sorted(
        int(at) for at, own in pictures.items() if "truth" in own
    )
    assert all({"photo", "0.seed", "0.mask", "0.final"} <= own.keys() for own in pictures.values())
    assert not storage.exists(storage.join(RunLayout(out).gallery, "shards"))


def test_it_is_made_once_and_again_when_predictions_change(tmp_path, shards):
    out = make_run(tmp_path / "run")
    first = make(out)
    assert first == make(out) and len(shards) == 1
    layout = RunLayout(out)
    meta = artifacts.read_meta(layout.predictions("baseline"))
    assert meta is not None
    changed = dataclasses.replace(meta, fingerprint="0123456789abcdef", seal="")
    storage.write_bytes(f"{layout.predictions('baseline')}/meta.json", json.dumps(dataclasses.asdict(changed)).encode())
    again = make(out)
    assert again is not None and first is not None and again.fingerprint != first.fingerprint and len(shards) == 2


def test_a_stopped_one_goes_on_with_the_shards_that_it_has(tmp_path, shards, monkeypatch):
    out = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(gallery, "write_gallery", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(out)
    assert list(Path(out, "report").glob(f"gallery.making-*/{lines_name(0)}"))
    assert make(out) is not None and len(shards) == 1


def test_goals_before_the_network_and_no_wish_for_one(tmp_path, shards):
    out = make_run(tmp_path / "run", goal="seed")
    assert make(out, gallery_images=0) is None
    assert make(out) is not None
    assert index_of(RunLayout(out).gallery)["sources"][0]["stages"] == ["seed"]


def test_of_many_images_half_are_the_worst(tmp_path, shards):
    records = [ImageRecord(f"i{at:03d}", "", 4, 4, labels=()) for at in range(100)]
    taken = [one.image_id for one in choose(records, {f"i{at:03d}": -at for at in range(100)}, 20)]
    assert len(taken) == 20 and set(taken) >= {f"i{at:03d}" for at in range(90, 100)}
    assert taken == [one.image_id for one in choose(records, {f"i{at:03d}": -at for at in range(100)}, 20)]
    assert choose(records, {}, 100) == records


def test_two_runs_side_by_side(tmp_path):
    runs = [make_run(tmp_path / name, shift=shift) for name, shift in (("a", 0), ("b", 1))]
    _, page = run_compare(CompareArguments(tuple(runs), resamples=200))
    index = index_of(str(Path(page).parent / "gallery"))
    assert [source["label"][:3] for source in index["sources"]] == ["A: ", "B: "] and index["shown"] == [0, 1]
    assert len(index["ids"]) == 6 and 'href="gallery/index.html"' in Path(page).read_text()
    _, page = run_compare(CompareArguments(tuple(runs), resamples=200, gallery=0, out=str(tmp_path / "other")))
    assert not (Path(page).parent / "gallery").exists() and "gallery/index.html" not in Path(page).read_text()
