"""What holds for every test: the same examples in every CI run, and a Ctrl-C that arrives."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A change must not fail for an example that another change would have met as well: random examples
# are for people, who can look into what was found.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

# A suite that is started in the background inherits an ignored SIGINT and would pass it on to the
# processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
