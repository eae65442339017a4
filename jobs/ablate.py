"""Run a table of either paper over seeds, as parallel trials, and write it with our column beside it.

ray job submit --working-dir . -- python jobs/ablate.py qa_clims_table4 voc12 --data-root DIR --out DIR
"""

import os
import sys

# A submitted job runs this file from its working directory, where the package may not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from qaclims_ray.commands.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("ablate", sys.argv[1:], prog="jobs/ablate.py"))
