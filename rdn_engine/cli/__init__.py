"""rdn-engine predict | evaluate | calibrate | info | verify | build."""
