import pytest

from qaclims_ray.data.image_ids import image_id_of


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("a.jpg", "a"),
        ("a.JPEG", "a"),
        ("images/sub/a.png", "a"),
        ("images\\a.png", "a"),
        (" a ", "a"),
        ("2007.01", "2007.01"),
        ("2007.01.tif", "2007.01"),
        ("a.txt", "a.txt"),
        (".png", ""),
        ("e\u0301.png", "\xe9"),
    ],
)
def test_image_ids_lose_folder_and_image_suffix_only(name: str, image_id: str) -> None:
    assert image_id_of(name) == image_id
