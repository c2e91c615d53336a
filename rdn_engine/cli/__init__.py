"""rdn-engine predict | run | evaluate | calibrate | tune | export-triton | info | verify | build."""
