"""All methods: one line each."""

from dataclasses import field, fields
from typing import Any

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.methods.classifier.method import CLASSIFIER
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.clims.method import CLIMS
from qaclims_ray.methods.given.config import GivenConfig
from qaclims_ray.methods.given.method import GIVEN
from qaclims_ray.methods.method import Method
from qaclims_ray.methods.online.config import OnlineConfig
from qaclims_ray.methods.online.method import ONLINE, ONLINE_CLASSIFIER
from qaclims_ray.methods.patch_text.config import PatchTextConfig
from qaclims_ray.methods.patch_text.method import PATCH_TEXT
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.qa_clims.method import QA_CLIMS
from qaclims_ray.methods.sam3_names.config import Sam3NamesConfig
from qaclims_ray.methods.sam3_names.method import SAM3_NAMES
from qaclims_ray.methods.semples.config import SemplesConfig
from qaclims_ray.methods.semples.method import SEMPLES
from qaclims_ray.settings import settings


def _of(method: Method, section: type) -> Any:
    return field(default_factory=section, metadata={"method": method})


@settings
class MethodSettings:
    """Settings of all methods, a part of every run's; a field's name is the method's `section`."""

    classifier: ClassifierConfig = _of(CLASSIFIER, ClassifierConfig)
    """The plain classifier, where all methods start."""
    ritc: RitcConfig = _of(QA_CLIMS, RitcConfig)
    """QA-CLIMS."""
    clims: ClimsConfig = _of(CLIMS, ClimsConfig)
    """CLIMS, which came before QA-CLIMS."""
    semples: SemplesConfig = _of(SEMPLES, SemplesConfig)
    """SemPLeS."""
    given: GivenConfig = _of(GIVEN, GivenConfig)
    """CAMs made elsewhere."""
    patch_text: PatchTextConfig = _of(PATCH_TEXT, PatchTextConfig)
    """Seeds without training."""
    sam3_names: Sam3NamesConfig = _of(SAM3_NAMES, Sam3NamesConfig)
    """SAM 3 by class names, for comparison."""
    online: OnlineConfig = _of(ONLINE, OnlineConfig)
    """Final networks that make their own masks while they learn."""


_SUPERVISED = Method(name="supervised", kind="supervised", uses_classifier=False, has_cams=False)
"""The upper bound: no CAMs, the final network learns from the true masks."""

_GIVEN_MASKS = Method(name="given_masks", kind="given_masks", uses_classifier=False, has_cams=False, brings_masks=True)
"""Label maps made elsewhere (`masks.given`): no CAMs, the final network learns from them."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(found.metadata["method"] for found in fields(MethodSettings)),
        ONLINE_CLASSIFIER,
        _GIVEN_MASKS,
        _SUPERVISED,
    )
}
"""All methods by name."""


def method_of(name: str) -> Method:
    """Return a method by name.

    Raises:
        ConfigError: for a name that is not in `METHODS`.
    """
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]
