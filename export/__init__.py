"""From a trained checkpoint to an engine directory, with proof that the graphs compute what torch computes."""
