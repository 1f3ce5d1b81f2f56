"""TFLite files: their schema, what stands in one, and the ONNX model that it says.

`schema` holds the tables that reading and writing follow, `read` opens any file, `lift` translates it for `graph.load`.
Writing a file is the emitter's work (`compiler/emit/tflite`).
"""
