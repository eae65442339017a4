"""What `data` says and refuses, as every verb goes through it."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from qaclims_ray.errors import DataError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage, StageProgress
from tests.unit.data.tiny_data_sets import image_bytes
from tests.unit.stages.told import Told


def stage_of(tmp_path: Path, text: str, progress: StageProgress, count: int = 6, **settings: Any) -> Stage:
    root = tmp_path / "set"
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"i{number}.jpg").write_bytes(image_bytes(number))
    (root / "labels.csv").write_text(text)
    wanted = {"systems": ("baseline",), "goal": "seed", "data.dataset": "folder", "data.root": str(root)}
    config = with_overrides(miniature(), {**wanted, **{f"data.{name}": value for name, value in settings.items()}})
    return Stage(config, RunLayout(str(tmp_path / "out")), progress=progress)


SIX = "image,labels\n" + "".join(f"i{n},{c}\n" for n, c in enumerate(["cat/[b]", "cat", "[b]", "[b]/cat", "", "rare"]))


def test_notes_and_classes_are_told_also_when_the_manifest_is_there(tmp_path: Path) -> None:
    first = stage_of(tmp_path, SIX, Told())
    for what in ("finish", "there"):
        told = Told()
        run_data(Stage(first.config, first.layout, progress=told))
        ended = next(place for place, line in enumerate(told.lines) if line[0] == what)
        notes = [line for kind, line in told.lines[ended + 1 :] if kind == "note"]
        assert any(note.startswith('labels of an image are parted by "/"') for note in notes)
        assert "3 classes, by images of train (6 images): [b] 3, cat 3, rare 1" in notes
        assert "classes with fewer than 3 images in train, too few to learn from: rare (1)" in notes


def test_a_data_set_in_the_folder_of_the_run_moves_with_it(tmp_path: Path) -> None:
    """Images, and masks that the run translated; a data set that lies elsewhere stays where it is."""
    before, after = tmp_path / "before", tmp_path / "after"
    masks = before / "run" / "set" / "masks"
    masks.mkdir(parents=True)
    first = stage_of(before / "run", SIX, Told(), mask_values=("0=background", "1=[b]", "2=cat", "3=rare"))
    for number, value in enumerate((2, 2, 1, 1, 0, 3)):
        size = Image.open(before / f"run/set/i{number}.jpg").size
        Image.new("L", size, value).save(masks / f"i{number}.png")
    first = Stage(with_overrides(first.config, {"data.mask_check": "warn"}), RunLayout(str(before / "run")))
    made = run_data(first)
    assert made.records[0].mask_uri and made.records[0].mask_uri.startswith(f"{before}/run/data/masks/")

    before.rename(after)
    config = with_overrides(first.config, {"data.root": str(after / "run" / "set")})
    told = Told()
    found = run_data(Stage(config, RunLayout(str(after / "run")), progress=told))
    assert [kind for kind, _ in told.lines if kind in ("there", "finish", "remake")] == ["there"]
    assert found.fingerprint() == made.fingerprint()
    for record in found.records:
        assert Path(record.image_uri).is_file() and record.mask_uri and Path(record.mask_uri).is_file()
        assert record.image_uri.startswith(f"{after}/run/set/")
    assert f"read {after}/run/set" in found.notes


def test_names_in_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    text = io.StringIO()
    run_data(stage_of(tmp_path, SIX, ConsoleProgress(Console(file=text, width=60))))
    assert "[b] 3, cat 3, rare 1" in text.getvalue()
    assert 'as in "cat/[b]"' in text.getvalue()


def test_a_closing_bracket_in_a_line_of_a_stage_ends_nothing() -> None:
    text = io.StringIO()
    progress = ConsoleProgress(Console(file=text, width=200))
    progress.start("predict [/b]")
    progress.finish("2 masks -> /data/a[/b]/out[old]")
    assert "predict [/b]" in text.getvalue() and "/data/a[/b]/out[old]" in text.getvalue()


@pytest.mark.parametrize(
    ("cells", "settings", "expected"),
    [
        (["", "", "", ""], {}, "no image has any label"),
        (["", "", "", ""], {"class_names": ("polyp",)}, "no .image, class. pair to learn from"),
        (["cat", "cat", "cat", "cat"], {}, "every one of the 4 images of split train shows cat"),
        (["cat", "cat", "dog", "dog"], {"limit": 2}, "every one of the 2 images of split train shows cat"),
        (["cat", "dog", "cat", "dog"], {"limit": 1}, "a single image"),
    ],
)
def test_nothing_to_learn_is_refused(tmp_path: Path, cells: list[str], settings: dict[str, Any], expected: str) -> None:
    text = "image,labels\n" + "".join(f"i{n},{cell}\n" for n, cell in enumerate(cells))
    with pytest.raises(DataError, match=expected):
        run_data(stage_of(tmp_path, text, Told(), count=4, **settings))
    assert not (tmp_path / "out/manifest").exists()


def test_what_another_goal_needs_is_asked_of_a_manifest_that_is_there(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, SIX, Told())
    run_data(stage)
    further = Stage(with_overrides(stage.config, {"goal": "segmentation"}), stage.layout)
    with pytest.raises(DataError, match="belongs to split 'val'"):
        run_data(further)


def test_a_drawn_picture_that_was_changed_is_drawn_again_where_pictures_are_read(tmp_path: Path) -> None:
    config = with_overrides(miniature(), {"systems": ("baseline",), "goal": "seed", "data.num_images": 8})
    layout, told = RunLayout(str(tmp_path)), Told()
    run_data(Stage(config, layout))
    picture = Path(layout.data, "JPEGImages", "mini_000001.png")
    drawn = picture.read_bytes()
    picture.write_bytes(drawn[:40] + bytes([drawn[40] ^ 1]) + drawn[41:])
    Path(layout.manifest, "meta.json").unlink()
    run_data(Stage(config, layout, progress=told))
    assert picture.read_bytes() == drawn
    assert any("its JPEGImages/mini_000001.png was changed" in line for _, line in told.lines)
