"""The finance desk: a small web application over the same functions the command line calls.

Belongs here: log-in, forms, pages. Does not belong here: what a decision means (control/, anomalies/, ingest/,
billing/), SQL (desk/tables.py).

Server-rendered, no script at all: every page works with a keyboard and a screen reader, and the strictest content
security policy holds.
"""
