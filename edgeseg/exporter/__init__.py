"""Networks to deployable files, and the proof that a file equals its network."""
