"""How llama.cpp is to run on this machine: defaults, what `tune` found, and the memory that follows."""
