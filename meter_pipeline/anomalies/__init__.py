"""Flags that go to people: what usage should not look like, and the queue in which somebody decides."""
