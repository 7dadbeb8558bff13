"""SQL of the control schema: flags, evidence, alerts, notifications, metrics."""
