import numpy as np

from qaclims_ray.report.label_places import LEFT, place_labels

NOTHING = np.zeros((0, 2))
NO_BOX = np.zeros((0, 4))
TEXT, GROUND = (20.0, 10.0), (200.0, 100.0)


def places(anchors, obstacles=NOTHING, *, first=(0, 1), taken=NO_BOX) -> np.ndarray:
    points = np.array(anchors, dtype=float)
    return place_labels(
        points, obstacles, text=TEXT, ground=GROUND, first_choices=[first] * len(points), taken=taken
    )  # fmt: skip


def test_nothing_in_the_way_takes_the_first_choice():
    assert places([(100, 50)]).tolist() == [[0, 12]]
    assert places([(100, 50)], first=LEFT).tolist() == [[-17, 0]]


def test_a_text_moves_off_a_line():
    rising = np.stack([np.linspace(100, 130, 40), np.linspace(50, 90, 40)], 1)
    (x, y) = places([(100, 50)], rising)[0]
    inside = (np.abs(rising - (100 + x, 50 + y)) < (10, 5)).all(1)
    assert not inside.any()
    assert (np.abs(rising - (100, 62)) < (10, 5)).all(1).any()  # the first choice would have covered it


def test_texts_of_points_on_one_another_stay_apart():
    centres = np.array([(100, 50), (104, 51), (98, 49)]) + places([(100, 50), (104, 51), (98, 49)])
    gaps = np.abs(centres[:, None] - centres)[np.triu_indices(3, 1)]
    assert ((gaps[:, 0] >= 20) | (gaps[:, 1] >= 10)).all()


def test_texts_stay_inside_and_clear_of_those_that_are_there():
    assert places([(100, 99)])[0, 1] < 0 and places([(2, 50)], first=LEFT)[0, 0] >= 0
    above = np.array([[80, 55, 120, 75]], dtype=float)
    assert places([(100, 50)], taken=above)[0, 1] < 0
