"""Photographs that EXIF turns upright, and label maps that may not have been turned with them."""

from collections.abc import Sequence

from qaclims_ray.data.photographs import PhotoHeader

_MAX_SHOWN = 3


def size_complaint(
    what: str, size: tuple[int, int], header: PhotoHeader, orientation: int = 1
) -> tuple[str, str] | None:
    """Return what is wrong with a label map whose size is not that of its photograph, as a heading and a detail.

    Args:
        what: "mask" or "context map", for the message.
        size: of the label map, width and height in pixels.
        header: of the photograph.
        orientation: EXIF's number, by which the label map itself was turned.
    """
    (width, height), own = size, (header.width, header.height)
    if size == own:
        return None
    if orientation >= 5 and (height, width) == own:
        detail = (
            f"{what} is stored as {height} x {width}, like the image, but its own EXIF orientation {orientation} turns "
            f"it to {width} x {height}: remove the tag from the {what}"
        )
        return f"{what} that is turned", detail
    if header.is_turned_sideways and (height, width) == own:
        detail = (
            f"{what} is {width} x {height}, drawn on the pixels as they are stored; EXIF orientation "
            f"{header.orientation} turns the photograph to {header.width} x {header.height}: turn the {what} as well, "
            "or remove the tag from the photograph"
        )
        return f"{what} of a photograph that is turned", detail
    return "size mismatch", f"{what} is {width} x {height}, the image is {header.width} x {header.height}"


def turned_note(image_ids: Sequence[str]) -> list[str]:
    """Return a note of turned photographs with masks: after half a turn, or on a square, sizes agree in any case.

    Args:
        image_ids: photographs with an orientation other than 1 and a mask.
    """
    if not image_ids:
        return []
    shown = ", ".join(image_ids[:_MAX_SHOWN]) + (", ..." if len(image_ids) > _MAX_SHOWN else "")
    return [
        f"{len(image_ids)} photographs with masks are turned upright by their EXIF orientation ({shown}); look whether "
        "their masks are drawn on the upright picture"
    ]
