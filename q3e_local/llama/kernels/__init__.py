"""Our kernels, which llama.cpp calls on the CPU: which of them computes, and the proof that it computes right."""
