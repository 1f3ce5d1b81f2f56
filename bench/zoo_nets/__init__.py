"""Networks of the field at small width, as plain torch modules, for the zoo bench and its tests."""
