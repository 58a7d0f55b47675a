"""Where ``celery -A worker`` looks for the app, for a worker as for Flower."""

import gc
import os

# A third of a start was the collector, looking again and again at half a million objects that stay.
gc.disable()

from worker.tasks import app  # noqa: E402 - with the collector off

gc.freeze()
gc.enable()

# Flower itself listens on every address, with nobody asked for a password. Its own variable and its
# ``--address`` say otherwise.
os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
# What a batch is and how it ended: arguments and result, which Flower does not list by itself.
os.environ.setdefault("FLOWER_TASKS_COLUMNS", "args,result,state,received,runtime,worker,uuid")

__all__ = ["app"]
