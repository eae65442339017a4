"""The pipeline, artefact to artefact, one module per verb."""
