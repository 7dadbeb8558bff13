"""The Celery app that workers run: ``celery -A meter_pipeline.defs.celery_app worker --concurrency 1 --queues
dagster``.
"""

from __future__ import annotations

from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from meter_pipeline.defs.lib.executors import CELERY_CONFIG, celery_args

app = make_app(celery_args())
app.conf.update(CELERY_CONFIG)
execute_plan = create_task(app)
