"""Where ``celery -A worker`` looks for the app."""

from worker.tasks import app

__all__ = ["app"]
