"""A final network behind `mlflow models serve`: photographs in, masks out. MLflow loads this module by its name.

A request has a column ``image``, the bytes of an image file in base64; the answer has ``mask``, a PNG in base64 whose
pixel values are labels, and ``found``, the classes with their shares of the pixels, as JSON.
"""

import base64
import io
import json
from typing import Any

from PIL import Image, UnidentifiedImageError

from qaclims_ray.errors import DataError
from qaclims_ray.stages.trained import LoadedNetwork, load


class ServedNetwork:
    """What MLflow calls for each request."""

    def __init__(self, network: LoadedNetwork) -> None:
        self.network = network

    def predict(self, requests: Any, params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """Return a mask of each row.

        Args:
            requests: a data frame with the column ``image``.
            params: none are known.

        Raises:
            DataError: when a row is no image file in base64.
        """
        return [self._answer(value, row) for row, value in enumerate(requests["image"])]

    def _answer(self, value: Any, row: int) -> dict[str, str]:
        found = self.network.predict(_picture(value, row))
        buffer = io.BytesIO()
        found.mask().save(buffer, format="PNG")
        mask = base64.b64encode(buffer.getvalue()).decode()
        return {"mask": mask, "found": json.dumps(found.found)}


def _picture(value: Any, row: int) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(value, validate=True)))
        picture.load()
        return picture
    except (TypeError, ValueError, UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"row {row}: column image is not an image file in base64 ({type(error).__name__}); send "
            '{"dataframe_records": [{"image": "..."}]} with the output of `base64 -w0 photo.jpg`'
        ) from None


def _load_pyfunc(path: str) -> ServedNetwork:
    """Read what MLflow kept; the name is MLflow's."""
    return ServedNetwork(load(path, device="cpu"))
