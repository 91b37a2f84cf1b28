"""The parts of compare.py: workloads, contenders, the children they run in, results and how they are shown."""
