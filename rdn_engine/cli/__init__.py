"""rdn-engine predict | run | evaluate | calibrate | tune | info | verify | build."""
