"""Which checkpoints are whole, and that the one before serves where the newest is damaged."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qaclims_ray.errors import ResourceError
from qaclims_ray.training.checkpoint import (
    SCRATCH_VARIABLE,
    Progress,
    epochs_kept,
    fault_of,
    new_checkpoint_folder,
    restore_checkpoint,
    save_checkpoint,
    seal_checkpoint,
)
from qaclims_ray.training.context import LocalContext

NETWORK = "network.safetensors"


def saved(folder: Path, epochs: int) -> Path:
    """A checkpoint of a layer whose weights are the number of its epochs."""
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, float(epochs))
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(seed=0, settings="x", epochs_done=epochs, metrics={"loss": 0.5})
    save_checkpoint(str(folder), lambda place: save_file(layer.state_dict(), f"{place}/{NETWORK}"), optimizer, progress)
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    """Change one bit, and neither the size nor the time."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def drop(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = (cut, flip, drop, empty)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [NETWORK, "optimizer.safetensors", "progress.json"])
def test_any_damage_to_any_file_is_seen(tmp_path, name: str, damage: Callable[[Path], None]):
    folder = saved(tmp_path / "c", 3)
    assert fault_of(str(folder)) == "" and epochs_kept(str(folder)) == 3
    damage(folder / name)
    assert name in fault_of(str(folder))
    assert epochs_kept(str(folder)) == 0


def test_a_changed_figure_of_the_progress_is_seen(tmp_path):
    folder = saved(tmp_path / "c", 3)
    path = folder / "progress.json"
    path.write_text(path.read_text().replace('"epochs_done": 3', '"epochs_done": 7'))
    assert fault_of(str(folder)) == "progress.json is damaged"


def test_what_is_added_or_changed_before_it_is_handed_on_counts_in(tmp_path):
    folder = saved(tmp_path / "c", 3)
    (folder / "more.json").write_text('{"a": 1}')
    assert fault_of(str(folder)) == "", "a note beside it is no damage"
    save_file({"chosen": torch.ones(2)}, folder / NETWORK)
    assert NETWORK in fault_of(str(folder))
    seal_checkpoint(str(folder))
    assert fault_of(str(folder)) == ""
    flip(folder / "more.json")
    assert "more.json" in fault_of(str(folder))


def test_a_checkpoint_of_an_earlier_version_has_sizes_alone(tmp_path):
    folder = saved(tmp_path / "c", 3)
    content = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(
        json.dumps({k: v for k, v in content.items() if k not in ("checksums", "seal")})
    )
    assert epochs_kept(str(folder)) == 3
    layer = nn.Linear(2, 2)
    fresh = Progress(seed=0, settings="x")
    restored = restore_checkpoint(str(folder), lambda place: None, torch.optim.AdamW(layer.parameters()), fresh)
    assert restored.epochs_done == 3
    cut(folder / NETWORK)
    assert epochs_kept(str(folder)) == 0


def keep(context: LocalContext, epochs: int) -> None:
    context.report({"epoch": float(epochs)}, str(saved(Path(tempfile.mkdtemp()), epochs)))


def weights_at(context: LocalContext) -> float:
    with context.latest_checkpoint() as folder:
        assert folder is not None
        return float(load_file(f"{folder}/{NETWORK}")["weight"][0, 0].round())


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_serves_where_the_newest_is_damaged(tmp_path, damage, caplog):
    context = LocalContext(str(tmp_path))
    for epochs in (1, 2, 3):
        keep(context, epochs)
    assert weights_at(context) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "previous"]
    damage(tmp_path / "latest" / NETWORK)
    assert weights_at(context) == 2
    assert f"{tmp_path}/latest is passed over: " in caplog.text
    keep(context, 3)
    assert weights_at(context) == 3


def test_a_place_for_checkpoints_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ResourceError, match=r"QACLIMS_SCRATCH names .*none, where no folder is"):
        new_checkpoint_folder()
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path))
    assert Path(new_checkpoint_folder()).parent == tmp_path
