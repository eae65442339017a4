"""What a run compares: named settings on top of the run's, and the papers' tables."""
