import hashlib

import numpy as np
import pytest

from qaclims_ray.miniature.answers import NUM_ANSWERS, true_answers
from qaclims_ray.miniature.objects import draw_object
from qaclims_ray.miniature.props import draw_prop
from qaclims_ray.miniature.scenes import WEAK_SET, Scene, SceneObject, SceneSettings, scene, scene_generator, scenes
from qaclims_ray.miniature.textures import draw_stuff
from qaclims_ray.miniature.vocabulary import (
    ALIASES,
    CLASSES,
    NUM_CLASSES,
    NUM_STUFF,
    NUM_ZONE_STUFF,
    PROPS,
    STUFF,
    world_words,
)


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return scenes(120, stream=0, seed=5)


def test_a_seed_fixes_every_pixel() -> None:
    first, again = scene(scene_generator(0, 3, 7)), scene(scene_generator(0, 3, 7))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.stuff_map, again.stuff_map)
    assert not np.array_equal(first.image, scene(scene_generator(1, 3, 7)).image)


def test_a_picture_does_not_depend_on_how_many_are_drawn() -> None:
    assert np.array_equal(scenes(3, stream=0, seed=1)[2].image, scenes(1, stream=0, seed=1, first_index=2)[0].image)


def test_the_world_is_the_one_whose_figures_were_measured() -> None:
    label_maps = np.stack([item.label_map for item in scenes(8, stream=0, seed=0)])
    assert hashlib.sha256(label_maps.tobytes()).hexdigest()[:16] == "18f3fada4066d40b"


def test_maps_hold_only_known_values(drawn: list[Scene]) -> None:
    for item in drawn:
        assert item.image.shape == (64, 64, 3)
        assert item.image.dtype == item.label_map.dtype == item.stuff_map.dtype == np.uint8
        assert item.label_map.max() <= NUM_CLASSES
        assert item.stuff_map.max() < NUM_STUFF
        assert set(item.class_ids) <= {thing.class_id for thing in item.objects}
        assert 1 <= len(item.objects) <= 2


def test_the_weak_set_has_the_measured_statistics() -> None:
    drawn = scenes(300, stream=0, seed=2)
    foreground = np.mean([(item.label_map > 0).mean() for item in drawn])
    assert 0.12 < foreground < 0.20
    assert 0.25 < np.mean([len(item.objects) == 2 for item in drawn]) < 0.45
    singles = [item for item in drawn if len(item.objects) == 1]
    assert np.mean([item.objects[0].class_id in item.stuff_map for item in singles]) > 0.8


def test_props_never_cover_objects(drawn: list[Scene]) -> None:
    settings = SceneSettings(prop_rate=1.0)
    for index in range(20):
        item = scene(scene_generator(0, 0, index), settings)
        assert not (item.stuff_map[item.label_map > 0] >= NUM_ZONE_STUFF).any()


@pytest.mark.parametrize("class_id", range(NUM_CLASSES))
def test_every_object_has_a_body_and_a_part(class_id: int) -> None:
    rng = np.random.default_rng(class_id)
    item = draw_object(rng, class_id, center=(32.0, 32.0), scale=1.3, color="red", pattern="striped")
    assert 150 < item.mask.sum() < 1800, CLASSES[class_id]
    assert 0 < item.part.sum() < 0.3 * item.mask.sum()
    assert not (item.part & ~item.mask).any()


@pytest.mark.parametrize("prop_id", range(len(PROPS)))
def test_every_prop_is_small(prop_id: int) -> None:
    mask, colors = draw_prop(np.random.default_rng(0), prop_id, center=(30.0, 30.0), scale=1.0)
    assert 20 < mask.sum() < 250
    assert colors.shape == (64, 64, 3)


def test_stuffs_differ() -> None:
    means = [draw_stuff(np.random.default_rng(0), stuff_id).mean((0, 1)) for stuff_id in range(NUM_ZONE_STUFF)]
    distances = [np.abs(means[i] - means[j]).max() for i in range(16) for j in range(i)]
    assert min(distances) > 0.02


def _flat_scene(label_map: np.ndarray, stuff_map: np.ndarray, class_id: int) -> Scene:
    objects = (SceneObject(class_id=class_id, color=0, pattern=1),)
    image = np.zeros((64, 64, 3), np.uint8)
    return Scene(image=image, label_map=label_map, stuff_map=stuff_map, objects=objects)


def test_answers_name_what_is_there() -> None:
    train, sky, track, bench = (
        CLASSES.index("train"),
        STUFF.index("sky"),
        STUFF.index("track"),
        STUFF.index("bench"),
    )
    stuff_map = np.full((64, 64), track, np.uint8)
    stuff_map[:30] = sky
    stuff_map[30:44, 12:20] = bench
    label_map = np.zeros((64, 64), np.uint8)
    label_map[30:44, 20:48] = train + 1
    answers = true_answers(_flat_scene(label_map, stuff_map, train), train)
    assert len(answers) == NUM_ANSWERS
    above, under, behind, _, _, left, right = answers[:7]
    assert (above, under, behind, left, right) == ("sky", "track", "sky", "bench", "track")
    assert answers[7:10] == ["station"] * 3
    assert answers[10:12] == ["red", "striped"]
    assert answers[12:] == [ALIASES[train]] * 4


def test_answers_are_words_of_the_world(drawn: list[Scene]) -> None:
    words = set(world_words())
    for item in drawn:
        for class_id in item.class_ids:
            answers = true_answers(item, class_id)
            assert len(answers) == NUM_ANSWERS
            assert set(answers) <= words


def test_default_settings_are_the_weak_set() -> None:
    assert SceneSettings() == WEAK_SET
