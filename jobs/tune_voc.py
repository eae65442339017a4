"""Search settings of a system on PASCAL VOC, or any other preset, by Ray Tune.

ray job submit --working-dir . -- python jobs/tune_voc.py --data-root DIR --out DIR --system qa_clims --trials 32
"""

import os
import sys

# A submitted job runs this file from its working directory, where the package may not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from qaclims_ray.commands.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("tune", sys.argv[1:], prog="jobs/tune_voc.py", default_preset="voc12"))
