"""The commands for jobs with vectors, a module each; `options` and `collection` are what they share."""
