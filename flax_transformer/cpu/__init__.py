"""What is tuned to processors (CPUs), behind doors that hold on every device.

``linear``, ``project`` and ``attend`` compute what the layers ask for; the gradients are written
out. On other devices a door leads to what JAX itself does there, or to what is as fast as it.
training_recipe/freed_memory.py belongs to the same subject, and both twins use it.
"""
