"""Train and score every system of a preset on VOC-layout data.

ray job submit --working-dir . -- python jobs/train_voc.py --preset voc12 --data-root DIR --out DIR
"""

import os
import sys

# A submitted job runs this file from its working directory, where the package may not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from qaclims_ray.commands.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("run", sys.argv[1:], prog="jobs/train_voc.py", default_preset="voc12"))
