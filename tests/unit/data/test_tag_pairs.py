"""Pairs of classes that tags hardly tell apart."""

from qaclims_ray.data.tag_pairs import TagPair, inseparable_pairs


def test_a_class_that_is_seldom_alone_is_told_and_not_the_other_way_round() -> None:
    labels = [("horse", "person")] * 9 + [("horse",)] + [("person",)] * 5
    assert inseparable_pairs(labels) == [TagPair("horse", "person", 9, 10)]


def test_few_images_say_nothing_and_a_tag_twice_counts_once() -> None:
    assert inseparable_pairs([("cat", "sofa")] * 2 + [("sofa",)] * 9) == []
    assert inseparable_pairs([("cat", "cat", "sofa")] * 3 + [("sofa",)] * 9) == [TagPair("cat", "sofa", 3, 3)]


def test_classes_that_are_always_together_are_told_both_ways_the_most_first() -> None:
    labels = [("cup", "plate")] * 4 + [("knife", "fork")] * 3 + [()] * 3
    assert [pair.name for pair in inseparable_pairs(labels)] == ["cup", "plate", "fork", "knife"]
