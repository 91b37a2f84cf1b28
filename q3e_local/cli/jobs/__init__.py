"""The commands for jobs with vectors, a module each; and what they share: options, and how results are written."""
