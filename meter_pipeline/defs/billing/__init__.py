"""Dagster definitions of bills: a day's charges, statements, the month's close, and the law that all usage keeps."""
