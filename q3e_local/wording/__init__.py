"""Numbers, names, tables and addresses as people write and read them. Arithmetic on text; opens nothing."""
