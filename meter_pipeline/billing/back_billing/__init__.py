"""Back-billing policy: the part of a correction of an issued bill that is charged or credited; the rest is waived."""
