"""The maps of an image at its own size, which every step but irn works on."""

from jaxtyping import Float, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.errors import ArtifactError, DataError


def full_maps(cam: ImageCam) -> Float[Tensor, "class height width"]:
    """Return an image's full maps in float32.

    Raises:
        ArtifactError: when they were stored on the small grid only.
    """
    if cam.full is None:
        raise ArtifactError(
            f"image {cam.image_id} was stored without full-resolution maps; "
            "run `qaclims cams` with cams.store set to both or full"
        )
    return cam.full.float()


def maps_of_image(cam: ImageCam, image: UInt8[Tensor, "3 height width"]) -> Float[Tensor, "class height width"]:
    """Return full maps that belong to some pixels; see `full_maps`.

    Raises:
        ArtifactError: when they were stored on the small grid only.
        DataError: when image and maps differ in size.
    """
    full = full_maps(cam)
    if full.shape[1:] != image.shape[1:]:
        raise DataError(
            f"image {cam.image_id} has {tuple(image.shape[1:])} pixels, its maps {tuple(full.shape[1:])}; "
            "make the maps again with `qaclims cams`"
        )
    return full
