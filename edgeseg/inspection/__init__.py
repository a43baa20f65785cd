"""What a file is, and whether this installation works: looked at, never changed and never run.

Files may come from strangers: headers have limits, pickles are read as tensors only, and nothing
that a file names outside of itself is opened. PyTorch, ONNX and coremltools are imported only for
the files that need them; the base install tells as much as it can without them.
"""
