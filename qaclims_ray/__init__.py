"""qaclims_ray: pixel masks from image-level labels, on one machine or a Ray cluster.

``from qaclims_ray import load; load("runs/mine").predict("photo.jpg").mask().save("mask.png")``
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qaclims_ray.stages.trained import LoadedNetwork as LoadedNetwork
    from qaclims_ray.stages.trained import PredictedMask as PredictedMask
    from qaclims_ray.stages.trained import load as load

__all__ = ["LoadedNetwork", "PredictedMask", "load"]


def __getattr__(name: str) -> Any:
    # Not at the top: what only asks for a version or help would load torch.
    if name in __all__:
        from qaclims_ray.stages import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
