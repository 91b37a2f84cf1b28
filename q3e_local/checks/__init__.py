"""Does it work, is it right, how fast is it: what `doctor`, `verify`, `bench` and `tune` find out."""
