"""Where things are kept: one interface each, an embedded default."""
