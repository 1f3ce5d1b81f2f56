"""A TFLite file as an ONNX model of real numbers: the mirror of the emitter (`compiler/emit/tflite`).

`lifting` knows where every tensor lives in the ONNX graph, and in which order of axes; `call` gives an operator its operands;
each other file translates one kind of operators; `model` walks the file. Nothing is decided here: canonicalising folds and fuses.
"""
