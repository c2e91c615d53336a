"""rdn-engine predict | evaluate | info | verify | build."""
