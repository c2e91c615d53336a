"""Detecting in annotated videos, to score what is found; `rdn_engine.evaluation` has the figures."""
