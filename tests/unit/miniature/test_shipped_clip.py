import json

import pytest

from qaclims_ray.errors import ModelError
from qaclims_ray.miniature import shipped
from qaclims_ray.miniature.clip_probe import probe
from qaclims_ray.models.clip.frozen import load_clip


def test_the_shipped_clip_sees_objects_through_both_masks() -> None:
    rows = probe(load_clip(str(shipped.clip_dir()), None, device="cpu", mask_adapted=True), num_images=60)
    assert rows["object"].accuracy > 0.95
    assert rows["token mask: object"].accuracy > 0.95
    assert rows["object"].own_class > rows["all but the object"].own_class + 0.1
    assert rows["own stuff"].own_class > rows["own stuff"].other_class + 0.1, "the co-occurrence bias is gone"


def test_the_card_speaks_of_the_shipped_weights() -> None:
    folder = shipped.clip_dir()
    clip = load_clip(str(folder), None, device="cpu", mask_adapted=True)
    assert clip.fingerprint() in (folder / "MODEL_CARD.md").read_text()
    assert json.loads((folder / "training.json").read_text())["settings"]["steps"] == 2200


def test_an_absent_model_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(shipped, "_WEIGHTS_DIR", tmp_path)
    with pytest.raises(ModelError, match="--stage vqa"):
        shipped.vqa_dir()
