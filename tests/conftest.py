"""One thread per test process: more of them only fight over the few cores of a test machine."""

import torch

torch.set_num_threads(1)
