"""Images found by what files call them."""

from qaclims_ray.data.image_names import ImageNames, names_below


def test_names_are_paths_below_the_common_folder() -> None:
    assert names_below(["/a/b/c/1.jpg", "/a/b/2.jpg"]) == ["c/1.jpg", "2.jpg"]
    assert names_below(["/a/b/1.jpg", "/a/b/2.jpg"]) == ["1.jpg", "2.jpg"]
    assert names_below(["s3://bucket/x/1.jpg"]) == ["1.jpg"]
    assert names_below([]) == []
    assert names_below(["/a/u\u0308.jpg"]) == ["\u00fc.jpg"], "letters with accents in one form"


def test_the_longest_end_of_a_path_that_fits_counts() -> None:
    names = ImageNames({"bird_1": "/set/bird/1.jpg", "bus_1": "/set/bus/1.jpg", "\u00fc 2": "/set/bus/\u00fc 2.jpg"})
    found = names.found(["bird/1.jpg", "elsewhere/bus/1.png", "u\u0308 2", "1.jpg", "BUS_1", "3.jpg"])
    assert found == {"bird_1": ["bird/1.jpg"], "bus_1": ["elsewhere/bus/1.png"], "\u00fc 2": ["u\u0308 2"]}
    assert names.found(["other/\u00fc 2.jpg", "bus/\u00dc 2.jpg"]) == {"\u00fc 2": ["bus/\u00dc 2.jpg"]}
    assert names.found(["a/bird/1.jpg", "b/bird/1.jpg"])["bird_1"] == ["a/bird/1.jpg", "b/bird/1.jpg"]
    assert names.found(["windows\\bird\\1.jpg"]) == {"bird_1": ["windows\\bird\\1.jpg"]}


def test_names_below_are_parts_of_uris() -> None:
    assert names_below(["s3://bucket/data/cat/1.jpg", "s3://bucket/data/car/1.jpg"]) == ["cat/1.jpg", "car/1.jpg"]
    assert names_below(["/d/a.jpg", "s3://b/c.jpg"]) == ["/d/a.jpg", "s3://b/c.jpg"]
    assert names_below(["/d/a.jpg"]) == ["a.jpg"] and names_below([]) == []
