"""A module whose import never ends. Descriptor 50 is told that it has begun."""

import os
import signal

os.write(50, b".")
while True:
    signal.pause()
