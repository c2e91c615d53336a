"""Which dials and options meet a budget on this machine, and with what accuracy (docs/tuning.md)."""
