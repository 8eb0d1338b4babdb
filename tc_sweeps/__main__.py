"""`python -m tc_sweeps [overrides]` is `tc-sweeps run [overrides]`."""

import sys

from tc_sweeps.cli import end_by, run

end_by(lambda: run(sys.argv[1:], program="python -m tc_sweeps"))
