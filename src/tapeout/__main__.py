"""`python -m tapeout` is the command line."""

import sys

from tapeout.cli.main import main

sys.exit(main())
