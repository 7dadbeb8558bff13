"""The finance desk: a small web application over the same functions the command line calls.

Belongs here: log-in, forms, pages. Does not belong here: the effect of a decision (control/, anomalies/, ingest/,
billing/), SQL (desk/tables.py).

Server-rendered, no script at all: every page works with a keyboard and a screen reader, and the strictest content
security policy holds.
"""
