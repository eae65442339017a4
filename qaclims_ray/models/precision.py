"""What networks compute in: one setting per stage, and what "auto" stands for where the stage runs.

It loads neither torch nor a network, since settings are made of it; ``devices.py`` enters what it says.
"""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""The setting of a stage that infers."""
TrainingPrecision = Literal["auto", "fp32", "bf16"]
"""The setting of trainings: in fp16 small gradients would vanish."""
Arithmetic = Literal["fp32", "bf16", "fp16"]
"""What is computed in. fp32 is float32 with products in TF32 on GPUs; in the others matrix products and convolutions
are of that type, and what sums many numbers (norms, softmax, losses) stays float32."""


def stands_for(setting: Precision, *, gpus: float | int, auto: Arithmetic) -> Arithmetic:
    """Return what a setting stands for. It follows from settings alone, so that it is known before anything runs.

    Args:
        setting: of the stage.
        gpus: GPUs of the actor, task or worker that computes.
        auto: what "auto" is on a GPU; on a CPU it is fp32, which published figures were made with.
    """
    if setting != "auto":
        return setting
    return auto if gpus > 0 else "fp32"


def recorded(found: Arithmetic) -> dict[str, Arithmetic]:
    """Return what a fingerprint says of it: nothing of fp32, so that artefacts from before the setting stay current."""
    return {} if found == "fp32" else {"precision": found}
