"""Where ``celery -A worker`` looks for the app, for a worker as for Flower."""

import os

from worker.tasks import app

# Flower itself listens on every address, with nobody asked for a password. Its own variable and its
# ``--address`` say otherwise.
os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
# What a batch is and how it ended: arguments and result, which Flower does not list by itself.
os.environ.setdefault("FLOWER_TASKS_COLUMNS", "args,result,state,received,runtime,worker,uuid")

__all__ = ["app"]
