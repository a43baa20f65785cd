"""The browser page, ONNX Runtime Web for it, and the small server that shows both; no torch."""
