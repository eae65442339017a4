"""Settings of CAMs that were made elsewhere."""

from qaclims_ray.settings import settings


@settings
class GivenConfig:
    """CAMs made elsewhere (row S22)."""

    cams: str = ""
    """Folder or URI of CAMs made elsewhere, shards or .npz (docs/artefacts.md)."""
