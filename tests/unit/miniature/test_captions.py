import numpy as np
import pytest
import torch

from qaclims_ray.miniature.captions import Caption, CaptionKind, MatchSettings, draw_captions, match_degrees
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, NUM_STUFF, NUM_ZONE_STUFF, STUFF, world_words

DOG, TRAIN = CLASSES.index("dog"), CLASSES.index("train")


def _degree(caption: Caption, areas: dict[int, float], *, color: int = -1, pattern: int = -1) -> float:
    visible = torch.zeros(1, NUM_STUFF + NUM_CLASSES)
    for thing, area in areas.items():
        visible[0, thing] = area
    colors = torch.full((1, NUM_CLASSES), color)
    patterns = torch.full((1, NUM_CLASSES), pattern)
    return match_degrees(visible, colors, patterns, [caption], MatchSettings()).item()


def test_captions_cover_the_world_in_known_words() -> None:
    words = set(world_words())
    counts = []
    for seed in range(20):
        captions = draw_captions(np.random.default_rng(seed))
        counts.append(len(captions))
        for caption in captions:
            assert set(caption.text.lower().replace(".", " .").split()) <= words, caption.text
        kinds = {caption.kind for caption in captions}
        assert kinds >= set(CaptionKind) - {CaptionKind.ABSENCE}
        assert {caption.subject for caption in captions if caption.kind == CaptionKind.STUFF} == set(range(NUM_STUFF))
    assert 70 < np.mean(counts) < 85


def test_captions_are_those_of_their_seed() -> None:
    first, again, other = (draw_captions(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        ({NUM_STUFF + TRAIN: 0.25}, 6 * 0.25),
        ({TRAIN: 0.5}, 0.5 * 0.5),
        ({NUM_ZONE_STUFF + TRAIN: 0.1}, 0.15 * 4 * 0.1),
        ({NUM_STUFF + DOG: 0.5}, 0.0),
    ],
    ids=["object", "own stuff", "own prop", "another object"],
)
def test_a_class_name_matches_object_stuff_and_prop(area: dict[int, float], expected: float) -> None:
    caption = Caption(text="train", kind=CaptionKind.OBJECT, subject=TRAIN)
    assert _degree(caption, area) == pytest.approx(expected)


def test_attributes_scale_the_match() -> None:
    area = {NUM_STUFF + TRAIN: 0.5}
    red = Caption(text="red train", kind=CaptionKind.OBJECT, subject=TRAIN, color=0)
    striped = Caption(text="striped train", kind=CaptionKind.OBJECT, subject=TRAIN, pattern=1)
    assert _degree(red, area, color=0) == pytest.approx(3.9)
    assert _degree(red, area, color=2) == pytest.approx(0.45)
    assert _degree(striped, area, pattern=1) == pytest.approx(3.3)
    assert _degree(striped, area, pattern=0) == pytest.approx(1.8)


def test_a_pair_needs_both() -> None:
    caption = Caption(text="dog on sky", kind=CaptionKind.OBJECT_WITH_STUFF, subject=DOG, stuff=STUFF.index("sky"))
    assert _degree(caption, {NUM_STUFF + DOG: 0.5}) == 0
    assert _degree(caption, {NUM_STUFF + DOG: 0.5, STUFF.index("sky"): 0.4}) == pytest.approx(0.6)


def test_absence_stuff_and_scene() -> None:
    absence = Caption(text="no dog", kind=CaptionKind.ABSENCE, subject=DOG)
    assert _degree(absence, {}) == pytest.approx(0.05)
    water = STUFF.index("water")
    assert _degree(Caption(text="water", kind=CaptionKind.STUFF, subject=water), {water: 0.3}) == pytest.approx(0.3)
    harbor = Caption(text="harbor", kind=CaptionKind.SCENE, subject=water)
    assert _degree(harbor, {water: 0.3, NUM_CLASSES + water: 0.2}) == pytest.approx(0.3)
