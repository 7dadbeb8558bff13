"""Where Dagster's daemon begins to read the event log of a new instance."""

import dagster as dg

#: The daemon that retries failed runs reads these (dagster._daemon.auto_run_reexecution.event_log_consumer).
_READ_BY_RETRIES = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS)


def start_reading_events(instance: dg.DagsterInstance) -> None:
    """Note the newest event as read where nothing is noted, so that runs of before are not retried.

    The daemon does the same at its first look, and warns twice that it had no cursor.
    """
    keys = {f"EVENT_LOG_CONSUMER_CURSOR-{event.value}" for event in _READ_BY_RETRIES}
    missing = keys - set(instance.daemon_cursor_storage.get_cursor_values(keys))
    if missing:
        newest = instance.event_log_storage.get_maximum_record_id() or 0
        instance.daemon_cursor_storage.set_cursor_values(dict.fromkeys(missing, str(newest)))
