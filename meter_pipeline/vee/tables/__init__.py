"""SQL of the vee schema: validated days, true-ups, edits."""
