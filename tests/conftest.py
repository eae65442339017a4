"""One thread per test process, and generated examples that are the same in every run.

More threads only fight over the few cores of a test machine. `QACLIMS_EXPLORE=1 make test-unit` draws new examples.
"""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("explore" if os.environ.get("QACLIMS_EXPLORE") else "same")
