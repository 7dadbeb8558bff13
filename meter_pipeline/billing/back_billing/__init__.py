"""Back-billing policy: what of a correction of an issued bill is charged or credited, and what is waived."""
