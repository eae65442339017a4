"""SAM 3 asked by names: what of its answers becomes a map, on hand-made answers and on a tiny model."""

import pytest
import torch
from transformers import Sam3Model, Sam3Processor

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.errors import ModelError
from qaclims_ray.methods.sam3_names.config import Sam3NamesConfig
from qaclims_ray.methods.sam3_names.network import LoadSam3Names, named_scores
from tests.unit.refine import tiny_sams
from tests.unit.refine.test_sam_masks import image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return tiny_sams.save_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.mark.parametrize("values", [{"model": " "}, {"least_score": -0.1}, {"least_score": 1.1}])
def test_settings_that_cannot_be_are_refused(values) -> None:
    with pytest.raises(ValueError, match=f"sam3_names.{next(iter(values))} is"):
        Sam3NamesConfig(**values)


def loaded(folder: str, least_score: float = 0.5):
    return LoadSam3Names(model=folder, words=tiny_sams.WORDS, least_score=least_score)(CPU)


def logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share)))


def test_the_best_of_instances_and_of_all_of_them_counts_for_each_pixel() -> None:
    # Two instances of scores 0.9 and 0.4 over three pixels; the second is below 0.5 and left out.
    scores = torch.tensor([logit(0.9), logit(0.4)])
    masks = torch.tensor([[[logit(0.5), logit(0.1), logit(0.1)]], [[logit(0.99), logit(0.99), logit(0.99)]]])
    semantic = torch.tensor([[logit(0.2), logit(0.7), logit(0.05)]])
    found = named_scores(scores, masks, semantic, least_score=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.45, 0.7, 0.09]]))
    found = named_scores(scores, masks, semantic, least_score=0.3)
    torch.testing.assert_close(found, torch.tensor([[0.45, 0.7, 0.396]]))
    none = named_scores(scores, masks, semantic, least_score=0.95)
    torch.testing.assert_close(none, torch.tensor([[0.2, 0.7, 0.05]]))


def test_a_map_is_that_of_the_documented_call(folder) -> None:
    """By transformers' own way: image and word through the processor, in one call of the model."""
    (cam,) = loaded(folder, 0.0)([image()], [(3,)], ["one"], CamConfig(store="full"))
    model, processor = Sam3Model.from_pretrained(folder).eval(), Sam3Processor.from_pretrained(folder)
    inputs = processor(images=image(), text="bird", return_tensors="pt")
    with torch.no_grad():
        found = model(**{key: inputs[key] for key in ("pixel_values", "input_ids", "attention_mask")})
    size = [(40, 50)]
    semantic = processor.post_process_semantic_segmentation(found, size, return_segmentation_scores=True)
    instances = (found.pred_logits.sigmoid()[0, :, None, None] * found.pred_masks[0].sigmoid()).amax(0)
    small = torch.maximum(found.semantic_seg[0, 0].sigmoid(), instances)
    expected = torch.nn.functional.interpolate(small[None, None], (40, 50), mode="bilinear")[0, 0]
    assert cam.full is not None and cam.class_ids == (3,) and cam.grid is None
    torch.testing.assert_close(cam.full[0], expected, atol=1e-5, rtol=1e-4)
    assert bool((cam.full[0] >= semantic[0].segmentation_scores[0] - 1e-4).all())


def test_only_the_tagged_classes_are_asked_for(folder) -> None:
    named = loaded(folder)
    asked: list[int] = []
    ask = named.model.forward
    named.model.forward = lambda **values: asked.append(int(values["input_ids"][0, 0])) or ask(**values)
    cams = named([image(), image(30, 60), image(20, 20)], [(2, 0), (1,), ()], ["a", "b", "c"], CamConfig(grid_stride=4))
    assert asked == [5, 3, 4], "ids of red, cat and dog"
    assert [(cam.class_ids, tuple(cam.full.shape), tuple(cam.grid.shape)) for cam in cams] == [
        ((2, 0), (2, 40, 50), (2, 10, 13)),
        ((1,), (1, 30, 60), (1, 8, 15)),
        ((), (0, 20, 20), (0, 5, 5)),
    ]
    assert all(0 <= float(cam.full.min()) and float(cam.full.max()) <= 1 for cam in cams[:2])


def test_other_words_give_other_maps(folder) -> None:
    (cam,) = loaded(folder)([image()], [(0, 1)], ["one"], CamConfig(store="full", dtype="float32"))
    assert cam.full is not None and float((cam.full[0] - cam.full[1]).abs().max()) > 1e-4


def test_the_part_that_takes_names_alone_is_enough(folder, tmp_path) -> None:
    part = tiny_sams.save_sam3_detector(tmp_path)
    (cam,) = loaded(part)([image()], [(0,)], ["one"], CamConfig(store="grid"))
    assert cam.full is None and cam.grid is not None and cam.grid.shape == (1, 10, 13)


def test_presence_is_told_beside_the_map(folder) -> None:
    (answer,) = loaded(folder).answers(image(), [1], CamConfig())
    assert 0 < answer.presence < 1 and answer.scores.shape == (40, 50)


@pytest.mark.parametrize(
    ("save", "kind"), [(tiny_sams.save_sam2, "sam2"), (tiny_sams.save_sam3_tracker, "sam3_tracker")]
)
def test_what_takes_no_names_is_refused(save, kind, tmp_path) -> None:
    with pytest.raises(ModelError, match=rf"type '{kind}', which cannot be asked by the names of classes"):
        loaded(save(tmp_path))


def test_a_processor_for_another_size(tmp_path) -> None:
    place = tiny_sams.save_sam3_detector(tmp_path)
    processor = Sam3Processor.from_pretrained(place)
    processor.image_processor.size = {"height": 112, "width": 112}
    processor.save_pretrained(place)
    with pytest.raises(ModelError, match=r"processor for 112 x 112 pixels, but a network for 56"):
        loaded(place)


def test_an_absent_folder(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"configuration of SAM 3 .* could not be read"):
        loaded(str(tmp_path / "absent"))
