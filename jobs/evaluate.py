"""Score a run's systems and write its report; what is missing is computed first.

ray job submit --working-dir . -- python jobs/evaluate.py --out DIR
"""

import os
import sys

# A submitted job runs this file from its working directory, where the package may not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from qaclims_ray.commands.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("report", sys.argv[1:], prog="jobs/evaluate.py"))
