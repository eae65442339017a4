"""Parts of an artefact in the making: one that was damaged before a call goes on with it is made again."""

from pathlib import Path

import pytest
import torch

from qaclims_ray.data import whole_files
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.images import load_image, save_label_map
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import finished_shards, shard_name
from qaclims_ray.errors import DamagedError, DataError

PARTS = 3


def _artifact(folder: Path) -> Artifact:
    return Artifact(uri=str(folder / "cams"), kind="cams", settings={}, verb="cams")


def _write(artifact: Artifact, *indices: int) -> None:
    for index in indices:
        with whole_files.publishing_part(f"{artifact.workshop}/{shard_name(index)}") as path:
            Path(path).write_bytes(f"part {index}".encode() * 20)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_part_of_a_stopped_stage_is_not_finished(harm, tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, 0, 2)
    assert finished_shards(artifact, PARTS) == {0, 2}
    harm(Path(artifact.workshop, shard_name(2)))
    assert finished_shards(artifact, PARTS) == {0}


def test_a_part_of_an_earlier_version_has_no_note_and_is_taken(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, 1)
    Path(artifact.workshop, f"{shard_name(1)}.sha256").unlink()
    assert finished_shards(artifact, PARTS) == {1}


def test_a_finished_artefact_keeps_no_notes(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, *range(PARTS))
    artifact.complete()
    names = {path.name for path in Path(artifact.uri).iterdir()}
    assert names == {*map(shard_name, range(PARTS)), "files.json", "meta.json"}


def test_of_a_damaged_artefact_only_parts_whose_content_is_right_are_kept(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, *range(PARTS))
    artifact.complete()
    Path(artifact.uri, shard_name(0)).unlink()  # the fault that is found at once
    _flip(Path(artifact.uri, shard_name(1)))  # and one that sizes do not tell
    artifact.begin(goes_on=True)
    assert finished_shards(artifact, PARTS) == {2}


@pytest.mark.parametrize("listing", ["", "broken"])
def test_a_workshop_that_was_listed_before_its_call_was_cut_off_is_held_to_the_list(listing, tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, *range(PARTS))
    whole_files.write_list(artifact.workshop)  # from here on there are no notes
    assert not list(Path(artifact.workshop).glob("*.sha256"))
    _flip(Path(artifact.workshop, shard_name(1)))
    if listing:
        Path(artifact.workshop, "files.json").write_text(listing)
    artifact.begin(goes_on=True)
    assert finished_shards(artifact, PARTS) == (set() if listing else {0, 2})


def _labels(uri: str) -> None:
    save_label_map(torch.arange(64, dtype=torch.uint8).reshape(8, 8) % 3, uri)


@pytest.mark.parametrize("read", [load_mask, load_image])
def test_a_picture_that_a_run_made_is_made_again_and_one_of_the_user_is_told(read, tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _labels(f"{artifact.workshop}/a.png")
    artifact.complete()
    _labels(str(tmp_path / "own.png"))
    for path in (Path(artifact.uri, "a.png"), tmp_path / "own.png"):
        _flip(path)
    with pytest.raises(DamagedError, match=r"a\.png is not the file that was written"):
        read(f"{artifact.uri}/a.png")
    assert artifact.current() is None
    with pytest.raises(DataError, match=r"own\.png"):
        read(str(tmp_path / "own.png"))


def test_curves_are_listed_and_a_change_of_theirs_is_no_damage(tmp_path: Path) -> None:
    artifact = _artifact(tmp_path)
    _write(artifact, 0)
    curves = Path(artifact.workshop, whole_files.CURVES_NAME)
    curves.write_text('{"1": {"loss": 0.5}}')
    artifact.complete()
    curves = Path(artifact.uri, whole_files.CURVES_NAME)
    assert whole_files.is_as_listed(str(curves))
    curves.write_text('{"1": {"loss": 0.4}}')
    assert not whole_files.is_as_listed(str(curves)) and artifact.current() is not None
