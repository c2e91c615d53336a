"""rdn-engine predict | info | verify | build."""
