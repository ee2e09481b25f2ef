"""Run the command as `python -m leadlex.cli`."""

import sys

from . import main

sys.exit(main())
