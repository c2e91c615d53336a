"""The process around a scheduler: streams from a file, outputs, metrics, health, a page (`rdn-engine run`)."""
