"""SQL of the billing schema: days, reconciliation, statements, adjustments, periods."""
